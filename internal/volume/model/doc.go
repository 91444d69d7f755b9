// Package model holds the Promela models that the protocol's rules were found
// with, and the test that has spin search them: the rules hold, and each mutant
// is found. What the models say and leave out is in README.md. It leaves the code
// itself to package protocol's scripts and to package sim.
package model
