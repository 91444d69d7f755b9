// Package dockertest runs a test's containers on the real Docker Engine, through
// the docker command line.
//
// It promises that whatever a [Run] starts carries the run's label and is removed
// by that label when the test ends, that nothing else is ever touched, that every
// command and every wait has a deadline, and that a failed test shows the last
// lines of each container. It makes the base images that the project's
// Dockerfiles name without a container registry: from Debian packages and from
// the Go distribution of the machine.
//
// It leaves to its users what runs inside the containers, and whether a machine
// without Docker is a failure: here it is one.
package dockertest
