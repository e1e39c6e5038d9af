package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sort"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

const keySize, prefixSize = 71, 66

// commits: how long is a durable commit of one pair, with so many goroutines calling?
func commits(t task) outcome {
	s := openStore(t.Store)
	pairs := readPairs(t)
	write := func(p pair) { s.commit([]pair{p}) }
	if t.Call == "batch" {
		// A batch begins when all callers wait, and not after the default of ten milliseconds.
		s.db.MaxBatchSize = t.Threads
		write = s.batch
	}
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := 0; i < t.Threads; i++ {
		ready.Add(1)
		done.Add(1)
		go func(first int) {
			defer done.Done()
			ready.Done()
			<-start
			for at := first; at < len(pairs); at += t.Threads {
				write(pairs[at])
			}
		}(i)
	}
	ready.Wait()
	began := time.Now()
	close(start)
	done.Wait()
	times := map[string]float64{"commit": each(began, len(pairs))}
	defer s.close()
	return outcome{Times: times, Fingerprint: everything(s)}
}

// load: what does a pair cost to load in durable batches? bbolt owes nothing afterwards.
func load(t task) outcome {
	s := openStore(t.Store)
	file, err := os.Open(t.Inputs["pairs"])
	check(err)
	defer file.Close()
	began := time.Now()
	size := keySize + t.ValueSize
	reader := bufio.NewReaderSize(file, size*t.Batch)
	chunk := make([]byte, size*t.Batch)
	for {
		n, err := io.ReadFull(reader, chunk)
		if n > 0 {
			s.commit(pairsOf(chunk[:n], t))
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		check(err)
	}
	elapsed := each(began, t.Keys)
	times := map[string]float64{"written": elapsed, "settled": elapsed}
	memory := peakSize()
	defer s.close()
	return outcome{Times: times, Fingerprint: everything(s), Memory: memory}
}

// gets: what does a random get cost: found, missing, and found in a view of its own?
func gets(t task) outcome {
	s := openStore(t.Store)
	defer s.close()
	hits, misses := records(t, "hits", keySize), records(t, "misses", keySize)
	times := map[string]float64{}
	var fingerprint uint32
	getEach := func(name string, keys [][]byte) {
		found := make([][]byte, 0, len(keys))
		s.view(func(bucket *bbolt.Bucket) {
			began := time.Now()
			for _, key := range keys {
				value := bucket.Get(key)
				if value != nil {
					seen ^= value[0] ^ value[len(value)-1]
				}
				found = append(found, value)
			}
			times[name] = each(began, len(keys))
			if name != "get, the first time" {
				fingerprint = checksum(fingerprint, found)
			}
		})
	}
	getEach("get, the first time", hits)
	getEach("get", hits)
	getEach("get of a missing key", misses)
	apart := make([][]byte, 0, len(hits))
	began := time.Now()
	for _, key := range hits {
		apart = append(apart, s.get(key))
	}
	times["get, a view each"] = each(began, len(hits))
	return outcome{Times: times, Fingerprint: fingerprint}
}

// scans: what does a pair cost in a scan, forward, in reverse, and in prefixes of ten?
func scans(t task) outcome {
	s := openStore(t.Store)
	defer s.close()
	times := map[string]float64{}
	whole := t.Keys * (keySize + t.ValueSize)
	for _, name := range []string{"scan, the first time", "scan"} {
		s.view(func(bucket *bbolt.Bucket) {
			began := time.Now()
			touched := touch(bucket.Cursor(), nil)
			times[name] = each(began, t.Keys)
			require(touched == whole, "the scan is not whole")
		})
	}
	s.view(func(bucket *bbolt.Bucket) {
		began := time.Now()
		touched, cursor := 0, bucket.Cursor()
		for k, v := cursor.Last(); k != nil; k, v = cursor.Prev() {
			touched += look(k, v)
		}
		times["reverse scan"] = each(began, t.Keys)
		require(touched == whole, "the reverse scan is not whole")
	})
	prefixes, touched := records(t, "prefixes", prefixSize), 0
	s.view(func(bucket *bbolt.Bucket) {
		began := time.Now()
		cursor := bucket.Cursor()
		for _, prefix := range prefixes {
			touched += touch(cursor, prefix)
		}
		times["prefix scan"] = each(began, len(prefixes))
	})
	fingerprint := crc32.Update(everything(s), crc32.IEEETable, []byte(fmt.Sprint(touched)))
	return outcome{Times: times, Fingerprint: fingerprint}
}

// mix: what does an operation of a YCSB-like mix cost, every write a durable commit?
func mix(t task) outcome {
	s := openStore(t.Store)
	defer s.close()
	calls := records(t, "mix", 3+keySize+t.ValueSize)
	var values [][]byte
	var pages [][]pair
	began := time.Now()
	for _, record := range calls {
		key, value := record[3:3+keySize], record[3+keySize:]
		switch record[0] {
		case 'r':
			values = append(values, s.get(key))
		case 's':
			pages = append(pages, s.page(key, int(binary.LittleEndian.Uint16(record[1:]))))
		default:
			s.commit([]pair{{key, value}})
		}
	}
	times := map[string]float64{"operation": each(began, len(calls))}
	fingerprint := checksum(0, values)
	for _, page := range pages {
		for _, p := range page {
			fingerprint = checksum(fingerprint, [][]byte{p.key, p.value})
		}
	}
	return outcome{Times: times, Fingerprint: fingerprint}
}

// churn: how long are commits, and how long the longest, while pairs are overwritten?
func churn(t task) outcome {
	s := openStore(t.Store)
	defer s.close()
	pairs := readPairs(t)
	latencies := []float64{}
	at, batch := 0, make([]pair, 0, t.Batch)
	began := time.Now()
	now := began
	for now.Sub(began).Seconds() < t.Seconds {
		batch = batch[:0]
		stamp := fmt.Sprintf("%08d", len(latencies))
		for i := 0; i < t.Batch; i++ {
			p := pairs[(at+i)%len(pairs)]
			batch = append(batch, pair{p.key, append([]byte(stamp), p.value[8:]...)})
		}
		at += t.Batch
		s.commit(batch)
		before := now
		now = time.Now()
		latencies = append(latencies, float64(now.Sub(before).Nanoseconds()))
	}
	others := map[string]float64{
		"commits":        float64(len(latencies)),
		"pairs a second": float64(len(latencies)*t.Batch) / now.Sub(began).Seconds(),
	}
	sort.Float64s(latencies)
	times := map[string]float64{}
	for name, part := range map[string]float64{"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "longest": 1} {
		times[name] = latencies[int(float64(len(latencies)-1)*part)]
	}
	var fingerprint uint32
	s.view(func(bucket *bbolt.Bucket) {
		check(bucket.ForEach(func(k, _ []byte) error {
			fingerprint = checksum(fingerprint, [][]byte{k})
			return nil
		}))
	})
	return outcome{Times: times, Fingerprint: fingerprint, Others: others}
}

// opening: how long until a store is open, and until its first get?
func opening(t task) outcome {
	wanted := records(t, "hits", keySize)[0]
	began := time.Now()
	s := openStore(t.Store)
	opened := each(began, 1)
	found := s.get(wanted)
	times := map[string]float64{"open": opened, "open and first get": each(began, 1)}
	s.close()
	return outcome{Times: times, Fingerprint: checksum(0, [][]byte{found})}
}

// kill: write durable batches, then die without a word; opening then finds what they left.
func kill(t task) outcome {
	s := openStore(t.Store)
	pairs := readPairs(t)
	for at := 0; at < len(pairs); at += t.Batch {
		end := at + t.Batch
		if end > len(pairs) {
			end = len(pairs)
		}
		s.commit(pairs[at:end])
	}
	check(syscall.Kill(syscall.Getpid(), syscall.SIGKILL))
	select {}
}

// records cuts an input of that name into slices of its bytes.
func records(t task, name string, size int) [][]byte {
	data, err := os.ReadFile(t.Inputs[name])
	check(err)
	found := make([][]byte, 0, len(data)/size)
	for ; len(data) > 0; data = data[size:] {
		found = append(found, data[:size:size])
	}
	return found
}

func readPairs(t task) []pair {
	data, err := os.ReadFile(t.Inputs["pairs"])
	check(err)
	return pairsOf(data, t)
}

func pairsOf(data []byte, t task) []pair {
	size := keySize + t.ValueSize
	pairs := make([]pair, 0, len(data)/size)
	for ; len(data) > 0; data = data[size:] {
		pairs = append(pairs, pair{data[:keySize:keySize], data[keySize:size:size]})
	}
	return pairs
}

// each is the time since began, in nanoseconds, for each of count operations.
func each(began time.Time, count int) float64 {
	return float64(time.Since(began).Nanoseconds()) / float64(count)
}

// everything is a fingerprint of all that the store holds.
func everything(s *store) (fingerprint uint32) {
	s.view(func(bucket *bbolt.Bucket) {
		check(bucket.ForEach(func(k, v []byte) error {
			fingerprint = checksum(fingerprint, [][]byte{k, v})
			return nil
		}))
	})
	return fingerprint
}

// checksum is a fingerprint of what was read, after what was read before.
func checksum(fingerprint uint32, parts [][]byte) uint32 {
	for _, part := range parts {
		if part == nil {
			part = []byte("-")
		}
		fingerprint = crc32.Update(fingerprint, crc32.IEEETable, part)
	}
	return fingerprint
}
