// Package policy holds the project's own rules as tests: which package may
// import which, and why; that decisions are pure; what each package and file
// must or must not have. It has no code of its own.
//
// A rule is a row of a table with its reason. A new folder or dependency fails
// the tests until its row is there: that is the moment to think about it.
package policy
