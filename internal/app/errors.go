package app

import (
	"drover/internal/objstore"
	"drover/internal/repo"
	"drover/internal/volume"
)

// The kinds of error that the command line gives exit codes to. Match with errors.Is.
var (
	ErrNoRepository  = repo.ErrNoRepository
	ErrForeign       = volume.ErrForeign
	ErrWrongPassword = repo.ErrWrongPassword
	ErrHeld          = volume.ErrHeld
	ErrLocked        = repo.ErrLocked
	ErrDataDirInUse  = volume.ErrDataDirInUse
	ErrIncomplete    = volume.ErrIncomplete
	ErrPaths         = volume.ErrPaths
	ErrShrunk        = volume.ErrShrunk
	ErrForked        = volume.ErrForked
	ErrUnavailable   = objstore.ErrUnavailable
)
