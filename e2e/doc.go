// Package e2e holds the stories: what a user is promised, acted out with the
// real image of examples/git-server in real containers, on an S3 server in a
// container of its own.
//
// One file is one story. A story sees what a user sees: git, the command line
// of Drover, and Docker. The build tag e2e turns them on; `make e2e` runs them.
// The stories of the supervisor alone use the image of testdata/supervisor.
// No container has a Docker volume, and every story checks that.
package e2e
