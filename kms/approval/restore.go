package approval

import (
	"strings"
	"time"

	"chatelaine/kms"
)

// CloseRequests makes the records of a snapshot ready to be restored: every request in
// it that is not closed expires, since it may have been used after the snapshot was
// taken. It says how many those are. Other records stay as they are.
//
// Requests that were made after the snapshot are not in it: should their signatures be
// submitted again, they count until they expire by themselves.
func CloseRequests(items []kms.Item, now time.Time) (out []kms.Item, closed int, err error) {
	for _, item := range items {
		switch {
		case item.Key == openedKey: // an index of approved uses, of which there are none
			continue
		case strings.HasPrefix(item.Key, requestsKey):
			record, err := decode[Record](item)
			if err != nil {
				return nil, 0, err
			}
			if record.Closed != "" {
				break
			}
			record.close(StateExpired, now)
			if item, err = put(item.Key, record); err != nil {
				return nil, 0, err
			}
			closed++
		}
		out = append(out, item)
	}
	return out, closed, nil
}
