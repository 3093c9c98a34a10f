package inroot

const maxLinks = 32 // MAXSYMLINKS of sys/param.h
