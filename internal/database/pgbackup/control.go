package pgbackup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"
)

const (
	controlFile = "global/pg_control"
	controlSize = 8192
	// controlMost bounds struct ControlFileData (296 bytes in version 15, 304 in 18), whose last
	// field is its CRC-32C.
	controlLeast, controlMost = 200, 512
	controlTries              = 100
)

// readControl reads pg_control whole: the server writes it in place, and a reader may see half of that.
func readControl(ctx context.Context, dir string, system uint64) ([]byte, error) {
	var problem error
	for try := range controlTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(10 * time.Millisecond):
			}
		}
		b, err := os.ReadFile(filepath.Join(dir, controlFile))
		if err != nil {
			return nil, err
		}
		again, err := os.ReadFile(filepath.Join(dir, controlFile))
		if err != nil {
			return nil, err
		}
		if problem = checkControl(b, system); problem == nil && !bytes.Equal(b, again) {
			problem = errors.New("it changes all the time")
		}
		if problem == nil {
			return b, nil
		}
	}
	return nil, fmt.Errorf("read pg_control: %w", problem)
}

// checkControl makes sure that b is a whole pg_control, of any version, of the system.
func checkControl(b []byte, system uint64) error {
	if len(b) != controlSize {
		return fmt.Errorf("it has %d bytes, not %d", len(b), controlSize)
	}
	if have := binary.LittleEndian.Uint64(b); have != system {
		return fmt.Errorf("it is of system %d, not %d", have, system)
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Checksum(b[:controlLeast], table)
	for at := controlLeast; at < controlMost; at += 4 {
		if binary.LittleEndian.Uint32(b[at:]) == sum {
			return nil
		}
		sum = crc32.Update(sum, table, b[at:at+4])
	}
	return errors.New("its checksum is wrong")
}
