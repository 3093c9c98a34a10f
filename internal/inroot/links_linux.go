package inroot

const maxLinks = 40 // MAXSYMLINKS of linux/namei.h
