package registry

import (
	"errors"
	"testing"

	"chatelaine/kms"
)

func TestTheQuotaIsTheLessOfWhatIsToldAndConfigured(t *testing.T) {
	for _, test := range []struct{ told, configured, want int64 }{
		{0, 0, 2 << 30}, {0, 5, 5}, {7, 0, 7}, {7, 5, 5}, {5, 7, 5}, {-1, 0, 0}, {-1, 5, 5},
	} {
		if got := quotaOf(test.told, test.configured); got != test.want {
			t.Errorf("told %d, configured %d: got %d, want %d", test.told, test.configured, got, test.want)
		}
	}
}

func TestTheFullestMemberCounts(t *testing.T) {
	a, b, none := kms.Usage{InUse: 1, File: 4, Quota: 9}, kms.Usage{InUse: 2, File: 3, Quota: 8}, kms.Usage{InUse: 1, File: 1}
	away := errors.New("away")
	for _, test := range []struct {
		usages []kms.Usage
		errs   []error
		want   kms.Usage
	}{
		{[]kms.Usage{a, b}, []error{nil, nil}, kms.Usage{InUse: 2, File: 4, Quota: 8}},
		{[]kms.Usage{b, a}, []error{nil, nil}, kms.Usage{InUse: 2, File: 4, Quota: 8}},
		{[]kms.Usage{none, a}, []error{nil, nil}, a},
		{[]kms.Usage{a, none}, []error{nil, nil}, a},
		{[]kms.Usage{b, a}, []error{away, nil}, a},
	} {
		if got, err := fullest(test.usages, test.errs); err != nil || got != test.want {
			t.Errorf("%v: got %v, %v, want %v", test.usages, got, err, test.want)
		}
	}
	if _, err := fullest([]kms.Usage{{}, {}}, []error{away, away}); !errors.Is(err, away) {
		t.Errorf("got %v when no member answers", err)
	}
}
