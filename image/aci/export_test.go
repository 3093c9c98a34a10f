package aci

// ExtractHere is Extract without a process of its own.
var ExtractHere = extractHere

// Sentinels are the errors that survive the way from the child.
var Sentinels = sentinels
