// One measurement of bbolt in a process of its own: a task as the argument, its outcome printed.
//
// The tasks, the inputs and the outcomes are those of worker.py, spelled in task.py.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// task is what one process does; task.py says what each field means.
type task struct {
	Workload  string
	Store     string
	Inputs    map[string]string
	Keys      int
	ValueSize int `json:"value_size"`
	Batch     int
	Threads   int
	Seconds   float64
	Call      string
}

// outcome is what it found out; times are nanoseconds an operation.
type outcome struct {
	Times       map[string]float64 `json:"times"`
	Fingerprint uint32             `json:"fingerprint"`
	Memory      int                `json:"memory"`
	Version     string             `json:"version"`
	Others      map[string]float64 `json:"others"`
}

var workloads = map[string]func(task) outcome{
	"commits":  commits,
	"load":     load,
	"gets":     gets,
	"scans":    scans,
	"mix":      mix,
	"churn":    churn,
	"opening":  opening,
	"kill":     kill,
	"blob map": blobMap,
}

func main() {
	bare := peakSize()
	var t task
	check(json.Unmarshal([]byte(os.Args[1]), &t))
	check(os.MkdirAll(t.Store, 0o700))
	found := workloads[t.Workload](t)
	if found.Memory == 0 {
		found.Memory = peakSize()
	}
	found.Memory -= bare
	found.Version = runtime.Version()
	if found.Others == nil {
		found.Others = map[string]float64{}
	}
	check(json.NewEncoder(os.Stdout).Encode(found))
}

// peakSize is the peak resident bytes of this process, mapped files included; 0 if not Linux.
func peakSize() int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, "VmHWM:") {
			kilobytes, err := strconv.Atoi(strings.Fields(line)[1])
			check(err)
			return kilobytes << 10
		}
	}
	return 0
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func require(fact bool, message string) {
	if !fact {
		panic(fmt.Errorf("%s", message))
	}
}
