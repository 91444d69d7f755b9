package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"drover/client"
	"drover/internal/event"
	"drover/internal/volume"
)

// progressOf tells it as the API does; nil: nothing is under way.
func progressOf(p *volume.Progress, now time.Time) *client.Progress {
	if p == nil {
		return nil
	}
	c := &client.Progress{
		Work: p.Work, Seconds: now.Sub(p.Since).Seconds(),
		Files: p.Files, TotalFiles: p.TotalFiles, Bytes: p.Bytes, TotalBytes: p.TotalBytes,
	}
	done, total := float64(p.Bytes), float64(p.TotalBytes)
	if total == 0 {
		done, total = float64(p.Files), float64(p.TotalFiles)
	}
	if done > 0 && done < total {
		c.Left = c.Seconds * (total - done) / done
	}
	return c
}

// tellEvery is how often the log tells of work that takes its time.
const tellEvery = 30 * time.Second

// tellProgress tells the log, and as an event, how far long restores and backups are,
// until ctx ends.
func tellProgress(ctx context.Context, log *slog.Logger, tell func(event.Event), under func() *volume.Progress) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	var last time.Time // when what was under way at the last look had begun
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p := under()
			if p != nil && p.Since.Equal(last) {
				c := progressOf(p, now)
				log.Info(p.Work+" goes on", "files", p.Files, "total_files", p.TotalFiles, "bytes", p.Bytes, "total_bytes", p.TotalBytes,
					"took", roundSeconds(c.Seconds), "left", roundSeconds(c.Left))
				tell(event.Event{Name: eventProgress, Source: p.Work, Text: progressText(c)})
			}
			if p != nil {
				last = p.Since
			}
		}
	}
}

// progressText is for people: what is known of it.
func progressText(c *client.Progress) string {
	text := fmt.Sprintf("%d files, %d bytes", c.Files, c.Bytes)
	if c.TotalBytes > 0 {
		text = fmt.Sprintf("%d of %d files, %d of %d bytes", c.Files, c.TotalFiles, c.Bytes, c.TotalBytes)
	}
	if c.Left > 0 {
		text += fmt.Sprintf(", %s left", roundSeconds(c.Left))
	}
	return text
}

func roundSeconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}
