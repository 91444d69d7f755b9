//go:build bench

package bench

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/internal/testkit/etcdserver"
	"drover/internal/testkit/s3server"
)

// fromBucket is the line of a database's configuration by which a new replica copies the store's base backup.
var fromBucket = flag.String("from-bucket", "", "key and value, below database, by which a new replica copies the base backup; empty: not measured")

// streams is asked of a primary: does a replica, no copy that is under way, stream from it?
const streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name <> 'pg_basebackup'"

// TestReplica measures how long it takes from nothing to a replica that answers and streams: by Drover from its primary,
// by Drover from the bucket, and by pg_basebackup and a start by hand. The databases are alike, and nobody writes.
func TestReplica(t *testing.T) {
	etcd := etcdserver.Start(t, etcdserver.Options{})
	endpoint := strings.TrimPrefix(etcd.Endpoints[0], "http://")
	ways := []tool{byPeer(t, endpoint)}
	if *fromBucket != "" {
		ways = append(ways, byBucket(t, endpoint))
	}
	ways = append(ways, byHand(t))
	b := &bed{t: t}
	b.inTurn(ways, *rounds, func(_ int, way tool) took { return way.backup("", "") }).
		report(t, fmt.Sprintf("a new replica of a database of pgbench's scale %d", *scale), "not behind pg_basebackup")
}

// clone is how a tool of this test makes a replica, and removes it again.
func clone(name string, make func(), done func(ctx context.Context) bool, primary *database, undo func()) tool {
	return tool{name: name, backup: func(string, string) took {
		began := time.Now()
		make()
		primary.until("a replica", 20*time.Minute, func(ctx context.Context) bool {
			n, err := primary.query(ctx, streams)
			return err == nil && n == "1" && done(ctx)
		})
		wall := time.Since(began)
		undo()
		primary.until("the replica to be gone", time.Minute, func(ctx context.Context) bool {
			n, err := primary.query(ctx, streams)
			return err == nil && n == "0"
		})
		return took{wall: wall}
	}}
}

// byMember is a member of a cluster whose primary leads.
func byMember(name string, primary, replica *member) tool {
	return clone(name, replica.start, func(ctx context.Context) bool { return replica.is(ctx, "/replica") }, &primary.database, func() {
		replica.kill()
		replica.forget()
	})
}

// lead starts a cluster's first member, and fills its database.
func (m *member) lead(scale int) {
	m.t.Helper()
	m.start()
	m.await("/primary")
	m.fill(scale)
}

func byPeer(t *testing.T, etcd string) tool {
	t.Helper()
	primary := newMember(t, "peer0", "peer", etcd)
	primary.lead(*scale)
	return byMember("drover, from a peer", primary, newMember(t, "peer1", "peer", etcd))
}

// byBucket has a base backup of the filled database before anything is measured.
func byBucket(t *testing.T, etcd string) tool {
	t.Helper()
	s3 := s3server.Start(t, s3server.Options{})
	primary, replica := newMember(t, "bucket0", "bucket", etcd), newMember(t, "bucket1", "bucket", etcd)
	primary.lead(*scale)
	primary.Stop()
	for _, m := range []*member{primary, replica} {
		m.backsUp(s3, "data", "24h")
	}
	replica.more += "\n  " + *fromBucket
	primary.start()
	primary.awaitBackups(1)
	return byMember("drover, from the bucket", primary, replica)
}

func byHand(t *testing.T) tool {
	t.Helper()
	primary, replica := newPlain(t, "hand0"), newPlain(t, "hand1")
	primary.create()
	primary.fill(*scale)
	begin := func() {
		replica.copyOf(primary)
		replica.start()
	}
	return clone("pg_basebackup", begin, func(context.Context) bool { return true }, &primary.database, func() {
		replica.Stop()
		remove(t, filepath.Join(replica.dir, "data"))
	})
}
