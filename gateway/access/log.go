package access

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"chatelaine/kms/policy"
)

// Log records decisions, one JSON object a line, before they take effect. It may
// be used concurrently.
type Log struct {
	mu  sync.Mutex
	w   io.Writer
	now func() time.Time
	// torn says that half a line was left behind, so that the next must end it first.
	torn bool
}

// NewLog records to w, which gets one Write for each decision.
func NewLog(w io.Writer) *Log { return &Log{w: w, now: time.Now} }

// OpenLog records to the end of a file, which it makes with mode 0600 where there
// is none. The caller closes the file once no decision will come any more.
func OpenLog(path string) (*Log, io.Closer, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("access: opening the decision log: %w", err)
	}
	return NewLog(f), f, nil
}

// entry is a line of the log.
type entry struct {
	Time     time.Time `json:"time"`
	Decision string    `json:"decision"`
	// Policies are the ids of those that determined the decision; none of a denial
	// means that no policy permits it.
	Policies      []string `json:"policies,omitempty"`
	PolicyVersion uint64   `json:"policy_version"`
	Errors        []string `json:"errors,omitempty"`
	RequestID     string   `json:"request_id"`
	Principal     string   `json:"principal"`
	AccessKey     string   `json:"access_key"`
	Action        string   `json:"action"`
	Bucket        string   `json:"bucket,omitempty"`
	Key           string   `json:"key,omitempty"`
	Prefix        string   `json:"prefix,omitempty"`
	Source        string   `json:"source"`
	TLS           bool     `json:"tls"`
	Presigned     bool     `json:"presigned,omitempty"`
	Reason        string   `json:"reason,omitempty"`
}

func (l *Log) record(r Request, version uint64, d policy.Decision) error {
	e := entry{
		Time: l.now().UTC(), Decision: "deny", Policies: d.Policies, PolicyVersion: version, Errors: d.Errors,
		RequestID: r.RequestID, Principal: r.Principal, AccessKey: r.AccessKey,
		Action: r.Action, Bucket: r.Bucket, Key: r.Key, Prefix: r.Prefix, Source: r.Source.String(), TLS: r.TLS,
		Presigned: r.Presigned, Reason: r.Reason,
	}
	if d.Allow {
		e.Decision = "allow"
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("access: encoding a decision: %w", err)
	}
	return l.write(append(line, '\n'))
}

func (l *Log) write(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := l.w.Write(line)
	if err == nil && n < len(line) {
		err = io.ErrShortWrite
	}
	if err != nil {
		l.torn = l.torn || n > 0
		return fmt.Errorf("access: writing the decision log: %w", err)
	}
	l.torn = false
	return nil
}
