package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

const sharedBy = 2

var (
	bySnapshot = []byte("by_snapshot") // key of a snapshot -> digest
	byBlob     = []byte("by_blob")     // digest, zero byte, key of a snapshot -> nothing
	removing   = []byte("removing")    // key of a snapshot whose removal has begun -> nothing
	unheld     = []byte("unheld")      // digest of a blob that must go -> nothing
)

// names is a set behind a lock: a snapshotter or a content store that costs nothing.
type names struct {
	lock sync.Mutex
	set  map[string]struct{}
}

func (n *names) add(name string) {
	n.lock.Lock()
	defer n.lock.Unlock()
	n.set[name] = struct{}{}
}

func (n *names) has(name string) bool {
	n.lock.Lock()
	defer n.lock.Unlock()
	_, found := n.set[name]
	return found
}

func (n *names) remove(name string) {
	n.lock.Lock()
	defer n.lock.Unlock()
	delete(n.set, name)
}

// mapping is what the blob map's original did on bolt: two buckets, one update a change, and a
// count of references by cursor. Its worst defects are mended: the cursor is one over by_blob
// and moves on; keys cannot reach into their neighbours; an intent is recorded before a
// snapshot goes; a blob goes after the commit that queued it, and then leaves the queue.
type mapping struct {
	db                 *bbolt.DB
	lock               sync.Mutex
	snapshots, content *names
}

func (m *mapping) setBlob(key, digest string) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	if !m.snapshots.has(key) || !m.content.has(digest) {
		return errors.New("not found")
	}
	return m.db.Update(func(tx *bbolt.Tx) error {
		known := tx.Bucket(bySnapshot)
		if old := known.Get([]byte(key)); old != nil && string(old) != digest {
			return fmt.Errorf("snapshot %q has blob %s", key, old)
		}
		if err := known.Put([]byte(key), []byte(digest)); err != nil {
			return err
		}
		return tx.Bucket(byBlob).Put(edge(digest, key), []byte{})
	})
}

func (m *mapping) getBlob(key string) (digest string, err error) {
	err = m.db.View(func(tx *bbolt.Tx) error {
		digest = string(tx.Bucket(bySnapshot).Get([]byte(key)))
		return nil
	})
	return digest, err
}

func (m *mapping) remove(key string) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	if err := m.put(removing, key); err != nil {
		return err
	}
	m.snapshots.remove(key)
	var gone string
	err := m.db.Update(func(tx *bbolt.Tx) error {
		known, edges := tx.Bucket(bySnapshot), tx.Bucket(byBlob)
		digest := string(known.Get([]byte(key)))
		if err := known.Delete([]byte(key)); err != nil {
			return err
		}
		if err := edges.Delete(edge(digest, key)); err != nil {
			return err
		}
		if held, _ := edges.Cursor().Seek(edge(digest, "")); !bytes.HasPrefix(held, edge(digest, "")) {
			gone = digest
			if err := tx.Bucket(unheld).Put([]byte(digest), []byte{}); err != nil {
				return err
			}
		}
		return tx.Bucket(removing).Delete([]byte(key))
	})
	if err != nil || gone == "" {
		return err
	}
	m.content.remove(gone)
	return m.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(unheld).Delete([]byte(gone))
	})
}

func (m *mapping) put(bucket []byte, key string) error {
	return m.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).Put([]byte(key), []byte{})
	})
}

func edge(digest, key string) []byte { return []byte(digest + "\x00" + key) }

// blobMap: what do setBlob, getBlob and remove cost, every change durable?
func blobMap(t task) outcome {
	s := openStore(t.Store)
	defer s.close()
	check(s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bySnapshot, byBlob, removing, unheld} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	}))
	m := &mapping{
		db:        s.db,
		snapshots: &names{set: map[string]struct{}{}},
		content:   &names{set: map[string]struct{}{}},
	}
	keys, digests := make([]string, t.Keys), make([]string, t.Keys)
	for i := range keys {
		keys[i] = fmt.Sprintf("layer %d", i)
		digests[i] = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(fmt.Sprint(i/sharedBy))))
		m.snapshots.add(keys[i])
		m.content.add(digests[i])
	}
	times := map[string]float64{}
	measure := func(name string, call func(int)) {
		began := time.Now()
		for i := range keys {
			call(i)
		}
		times[name] = each(began, len(keys))
	}
	found := make([][]byte, len(keys))
	measure("set_blob", func(i int) { check(m.setBlob(keys[i], digests[i])) })
	measure("get_blob", func(i int) {
		digest, err := m.getBlob(keys[i])
		check(err)
		found[i] = []byte(digest)
	})
	measure("remove", func(i int) { check(m.remove(keys[i])) })
	require(len(m.snapshots.set) == 0, "a snapshot is left")
	require(len(m.content.set) == 0, "a blob is left")
	return outcome{Times: times, Fingerprint: checksum(0, found)}
}
