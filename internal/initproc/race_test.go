//go:build race

package initproc_test

const raceEnabled = true
