// Package sim runs several protocol machines in a simulated world, from a seed:
// a store that delays, drops, duplicates and reorders, and delivers writes long
// after they were given up; disks with a page cache; machines that crash, lose
// power, pause, are cloned and rolled back; clocks that run at different rates;
// jobs that write and ask for backups; a pruner, and people with restic.
//
// After every event it checks what the protocol promises (see check.go), and at
// the end, when all faults have ceased, that somebody serves. The same seed is
// the same schedule, and a failure carries its trace. It leaves the real disk,
// the real store and the real time to the tests of package volume.
package sim
