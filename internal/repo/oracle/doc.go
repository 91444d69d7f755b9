// Package oracle holds the tests that compare this repository code with stock
// restic 0.18, both ways: restic reads, checks, writes and prunes our
// repositories, and we do the same with restic's. It has no code of its own.
package oracle
