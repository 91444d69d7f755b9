package wal

import (
	"bytes"
	"context"
	"errors"
)

// What a timeline has from where the database left it is nobody's: a former primary goes on there for a while, replicas
// have received more or less of that, and behind it each has something else. So members that archive the same log have different ends of its
// last segment. Of them the first stays; the others are as good as stored if they are the same up to there.

// left reports whether the database left the timeline before the end of that file, and the archive has the
// file as far as it is the database's.
func (c *Courier) left(ctx context.Context, name Name, content []byte) (bool, error) {
	if name.Kind != Segment && name.Kind != Partial {
		return false, nil
	}
	end, err := c.end(ctx, name.Timeline)
	if err != nil || end == 0 {
		return false, err
	}
	begin := name.Begin(int64(len(content)))
	if end >= begin+LSN(len(content)) {
		return false, nil
	}
	whole := int(max(end, begin) - begin)
	have, err := c.archive.Fetch(ctx, name)
	if err != nil {
		return false, err
	}
	return len(have) == len(content) && bytes.Equal(have[:whole], content[:whole]), nil
}

// end is where the database left a timeline, by the newest history that there is here, else by the newest in the
// archive; 0: it did not, as far as is known.
func (c *Courier) end(ctx context.Context, t Timeline) (LSN, error) {
	line, err := c.dir.line()
	if err != nil {
		return 0, err
	}
	if end := line.end(t); end != 0 {
		return end, nil
	}
	newest, err := c.archive.Newest(ctx, t)
	if err != nil || newest == t {
		return 0, err
	}
	if line, err = c.archive.Line(ctx, newest); err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	return line.end(t), nil
}
