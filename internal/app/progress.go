package app

import (
	"context"
	"log/slog"
	"time"

	"drover/client"
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

// tellProgress logs how far long restores and backups are, until ctx ends.
func tellProgress(ctx context.Context, log *slog.Logger, under func() *volume.Progress) {
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
			}
			if p != nil {
				last = p.Since
			}
		}
	}
}

func roundSeconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}
