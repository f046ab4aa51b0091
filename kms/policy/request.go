package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	cedar "github.com/cedar-policy/cedar-go"

	"chatelaine/kms"
)

// Request is what is to be decided.
type Request struct {
	Principal string // a user's name
	AccessKey string // id of the access key that signed
	Action    string // a name of Actions
	Bucket    string // empty for actions on the service
	Owner     string // of the bucket; empty where there is none yet
	Key       string // of the object; empty for actions on buckets
	Prefix    string // of a list
	Source    netip.Addr
	TLS       bool
	Presigned bool
	Time      time.Time
	Reason    string // empty for none
}

// CheckRequest says why a request could only be denied, with a hint, whatever the
// policies; nil where they decide. It wraps kms.ErrInvalid.
func CheckRequest(q Request) error {
	all := Actions()
	i := slices.IndexFunc(all, func(a Action) bool { return a.Name == q.Action })
	if i < 0 {
		return fmt.Errorf("%w: unknown action %q%s", kms.ErrInvalid, q.Action, guess(q.Action, actionNames()))
	}
	return q.check(all[i])
}

func (q *Request) check(a Action) error {
	switch {
	case q.Principal == "":
		return fmt.Errorf("%w: no principal", kms.ErrInvalid)
	case !q.Source.IsValid():
		return fmt.Errorf("%w: no source address", kms.ErrInvalid)
	case (a.On == OnService) != (q.Bucket == ""):
		return fmt.Errorf("%w: %s is done to a %s, and the bucket is %q", kms.ErrInvalid, a.Name, a.On, q.Bucket)
	case a.On != OnObject && q.Key != "":
		return fmt.Errorf("%w: %s is done to a %s, and the key is %q", kms.ErrInvalid, a.Name, a.On, q.Key)
	}
	return nil
}

// world is the request's own part of the entities, over those of the set.
type world struct {
	set       *Set
	action    *action
	principal cedar.EntityUID
	bucket    cedar.EntityUID // the zero value where there is none
	resource  cedar.Entity    // its attributes come with fill
}

func (s *Set) world(q *Request, a *action) *world {
	w := &world{set: s, action: a, principal: cedar.NewEntityUID(userType, cedar.String(q.Principal))}
	if a.On == OnService {
		w.resource.UID = cedar.NewEntityUID(serviceType, "s3")
		return w
	}
	w.bucket = cedar.NewEntityUID(bucketType, cedar.String(q.Bucket))
	w.resource.UID = w.bucket
	if a.On == OnObject {
		w.resource.UID = cedar.NewEntityUID(objectType, cedar.String(q.Bucket+"/"+q.Key))
	}
	return w
}

// fill adds what only conditions look at.
func (w *world) fill(q *Request) {
	if w.action.On == OnService {
		return
	}
	attributes := cedar.RecordMap{"bucket": cedar.String(q.Bucket)}
	if q.Owner != "" {
		attributes["owner"] = cedar.NewEntityUID(userType, cedar.String(q.Owner))
	}
	if w.action.On == OnObject {
		attributes["key"] = cedar.String(q.Key)
		w.resource.Parents = cedar.NewEntityUIDSet(w.bucket)
	}
	w.resource.Attributes = cedar.NewRecord(attributes)
}

// Get implements cedar.EntityGetter. The bucket of an object needs no record: there
// is nothing above it, and policies cannot reach its attributes.
func (w *world) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	if uid == w.resource.UID {
		return w.resource, true
	}
	e, ok := w.set.entities[uid]
	return e, ok
}

func (w *world) request(q *Request) cedar.Request {
	return cedar.Request{Principal: w.principal, Action: w.action.uid, Resource: w.resource.UID, Context: q.context(w.action)}
}

// context is the type Request of the schema.
func (q *Request) context(a *action) cedar.Record {
	now := q.Time.UTC()
	out := cedar.RecordMap{
		"source": cedar.IPAddr(netip.PrefixFrom(q.Source, q.Source.BitLen())),
		"tls":    cedar.Boolean(q.TLS),
		"time":   cedar.NewDatetime(now), "hour": cedar.Long(now.Hour()), "weekday": cedar.Long((now.Weekday()+6)%7 + 1),
		"accessKey": cedar.String(q.AccessKey), "presigned": cedar.Boolean(q.Presigned),
	}
	if q.Reason != "" {
		out["reason"] = cedar.String(q.Reason)
	}
	if a.Lists {
		out["prefix"] = cedar.String(q.Prefix)
	}
	return cedar.NewRecord(out)
}
