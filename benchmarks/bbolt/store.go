package main

import (
	"bytes"
	"path/filepath"

	"go.etcd.io/bbolt"
)

var bucketName = []byte("kv")

type pair struct{ key, value []byte }

// store is one bucket of a bbolt database, synced at each commit.
type store struct{ db *bbolt.DB }

// openStore opens with what bbolt's documentation and etcd advise: the map kind of free list,
// and a map large enough that it need not be made anew as the file grows.
func openStore(directory string) *store {
	db, err := bbolt.Open(filepath.Join(directory, "bolt.db"), 0o600, &bbolt.Options{
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 16 << 30,
	})
	check(err)
	missing := false
	check(db.View(func(tx *bbolt.Tx) error {
		missing = tx.Bucket(bucketName) == nil
		return nil
	}))
	if missing {
		check(db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket(bucketName)
			return err
		}))
	}
	return &store{db}
}

func (s *store) commit(pairs []pair) {
	check(s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketName)
		for _, p := range pairs {
			if err := bucket.Put(p.key, p.value); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (s *store) batch(p pair) {
	check(s.db.Batch(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketName).Put(p.key, p.value)
	}))
}

// get returns a copy: what bbolt gives is valid in its transaction only.
func (s *store) get(key []byte) (value []byte) {
	s.view(func(bucket *bbolt.Bucket) {
		if found := bucket.Get(key); found != nil {
			value = append([]byte{}, found...)
		}
	})
	return value
}

// page returns copies of the first pairs from start on.
func (s *store) page(start []byte, count int) []pair {
	pairs := make([]pair, 0, count)
	s.view(func(bucket *bbolt.Bucket) {
		cursor := bucket.Cursor()
		for k, v := cursor.Seek(start); k != nil && len(pairs) < count; k, v = cursor.Next() {
			pairs = append(pairs, pair{append([]byte{}, k...), append([]byte{}, v...)})
		}
	})
	return pairs
}

func (s *store) view(read func(*bbolt.Bucket)) {
	check(s.db.View(func(tx *bbolt.Tx) error {
		read(tx.Bucket(bucketName))
		return nil
	}))
}

func (s *store) close() { check(s.db.Close()) }

// touch looks at every key and value from the cursor on, as far as the prefix goes.
func touch(cursor *bbolt.Cursor, prefix []byte) (size int) {
	for k, v := cursor.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = cursor.Next() {
		size += look(k, v)
	}
	return size
}

// seen keeps the compiler from leaving out what looks at bytes.
var seen byte

func look(key, value []byte) int {
	seen ^= key[len(key)-1] ^ value[0] ^ value[len(value)-1]
	return len(key) + len(value)
}
