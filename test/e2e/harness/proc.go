package harness

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor times in /proc: USER_HZ, which is 100 on every Linux.
const tick = 10 * time.Millisecond

// CPU is the processor time that a process has used, its children not counted.
// Source: proc_pid_stat(5), fields 14 and 15.
func CPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("harness: measuring processor time: %w", err)
	}
	// The name, in parentheses, may hold anything; the fields go on after it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var sum time.Duration
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("harness: measuring processor time: %w", err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// Memory is a process's resident memory in bytes.
type Memory struct {
	Now  int64 // VmRSS
	Peak int64 // VmHWM: the most since the start or ResetPeak
}

// MemoryOf reads the memory of a process. Source: proc_pid_status(5).
func MemoryOf(pid int) (m Memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, fmt.Errorf("harness: measuring memory: %w", err)
	}
	if m.Now, err = kilobytes(string(text), "VmRSS:"); err != nil {
		return m, err
	}
	m.Peak, err = kilobytes(string(text), "VmHWM:")
	return m, err
}

func kilobytes(status, name string) (int64, error) {
	_, rest, _ := strings.Cut(status, name)
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("harness: reading %s: %w", name, err)
	}
	return n << 10, nil
}

// ResetPeak makes Memory.Peak begin anew. Source: proc_pid_clear_refs(5).
func ResetPeak(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("harness: resetting the peak of memory: %w", err)
	}
	return nil
}

// Children lists the processes that a process has started and that still run.
func Children(pid int) ([]int, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	var out []int
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("harness: listing the children of %d: %w", pid, err)
			}
			out = append(out, child)
		}
	}
	return out, nil
}
