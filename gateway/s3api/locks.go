package s3api

import (
	"encoding/xml"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

const (
	bypassHeader = "x-amz-bypass-governance-retention" //nolint:gosec // G101: the name of a header
	lockMode     = "X-Amz-Object-Lock-Mode"
	lockUntil    = "X-Amz-Object-Lock-Retain-Until-Date"
	lockHold     = "X-Amz-Object-Lock-Legal-Hold"

	maxLockDays, maxLockYears = 36500, 100
)

// storeAttributes reads what a write asks the backend itself to keep. Tags and
// locks are rights of their own.
func (c *call) storeAttributes() (a objects.StoreAttributes, err error) {
	if a.Tags, err = headerTags(c.header.Get("X-Amz-Tagging")); err != nil {
		return a, err
	}
	if a.Lock, err = c.headerLock(); err != nil {
		return a, err
	}
	for _, right := range []struct {
		needed bool
		action string
	}{
		{len(a.Tags) > 0, "s3:PutObjectTagging"},
		{a.Lock.Mode != "", "s3:PutObjectRetention"},
		{a.Lock.Hold, "s3:PutObjectLegalHold"},
	} {
		if right.needed {
			if err := c.authorize(right.action, c.key); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

// headerLock reads the lock headers of a write.
func (c *call) headerLock() (lock backends.Lock, err error) {
	mode, until, hold := c.header.Get(lockMode), c.header.Get(lockUntil), c.header.Get(lockHold)
	if mode == "" && until == "" && hold == "" {
		return lock, nil
	}
	const both = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied."
	switch {
	case mode == "" && until != "":
		return lock, invalidArgument(both, strings.ToLower(lockMode), "")
	case until == "" && mode != "":
		return lock, invalidArgument(both, strings.ToLower(lockUntil), "")
	case hold != "" && hold != "ON" && hold != "OFF":
		return lock, invalidArgument("Legal Hold must be either of 'ON' or 'OFF'", strings.ToLower(lockHold), hold)
	}
	lock.Hold = hold == "ON"
	if mode != "" {
		if lock.Mode = backends.LockMode(mode); !validMode(lock.Mode) {
			return lock, invalidArgument("Unknown wormMode directive.", strings.ToLower(lockMode), mode)
		}
		if lock.Until, err = c.parseUntil(until); err != nil {
			return lock, err
		}
	}
	return lock, nil
}

func validMode(m backends.LockMode) bool { return m == backends.Governance || m == backends.Compliance }

// parseUntil reads a date that must lie ahead.
func (c *call) parseUntil(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, invalidArgument("The retain until date must be provided in ISO 8601 format", strings.ToLower(lockUntil), text)
	}
	if !t.After(c.Now()) {
		return t, invalidArgument("The retain until date must be in the future!", strings.ToLower(lockUntil), text)
	}
	return t, nil
}

// lockConfig: a backend without locks has buckets without any.
func (c *call) lockConfig() (backends.LockConfig, error) {
	config, err := c.Service.LockConfig(c.ctx, c.bucket)
	if errors.Is(err, objects.ErrUnsupported) {
		return backends.LockConfig{}, nil
	}
	return config, err
}

// bypass says whether the client wants a Governance retention lifted, which is a
// right of its own.
func (c *call) bypass(key string) (bool, error) {
	if !strings.EqualFold(c.header.Get(bypassHeader), "true") {
		return false, nil
	}
	return true, c.authorize("s3:BypassGovernanceRetention", key)
}

// setLock says in an answer what keeps an object.
func setLock(h http.Header, lock backends.Lock) {
	if lock.Mode != "" {
		h.Set(lockMode, string(lock.Mode))
		h.Set(lockUntil, iso(lock.Until))
	}
	setIf(h, lockHold, holdStatus(lock))
}

// holdStatus is empty where there never was a hold.
func holdStatus(lock backends.Lock) string {
	switch {
	case lock.Hold:
		return "ON"
	case lock.Lifted:
		return "OFF"
	}
	return ""
}

type lockDocument struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ObjectLockConfiguration"`
	Enabled string   `xml:"ObjectLockEnabled"`
	Rule    *lockRule
}

type lockRule struct {
	Default lockDefault `xml:"DefaultRetention"`
}

type lockDefault struct {
	Mode  string
	Days  *int
	Years *int
}

func (c *call) getLockConfig() error {
	config, err := c.lockConfig()
	if err != nil {
		return err
	}
	if !config.Enabled {
		return refused(http.StatusNotFound, "ObjectLockConfigurationNotFoundError",
			"Object Lock configuration does not exist for this bucket.", field{"BucketName", c.bucketName})
	}
	document := lockDocument{Enabled: "Enabled"}
	if config.Mode != "" {
		rule := &lockRule{Default: lockDefault{Mode: string(config.Mode)}}
		if config.Days > 0 {
			rule.Default.Days = &config.Days
		}
		if config.Years > 0 {
			rule.Default.Years = &config.Years
		}
		document.Rule = rule
	}
	return c.writeXML(http.StatusOK, document)
}

func (c *call) putLockConfig() error {
	var document struct {
		ObjectLockEnabled string
		Rule              *struct{ DefaultRetention *lockDefault }
	}
	if err := c.readConfig("ObjectLockConfiguration", &document); err != nil {
		return err
	}
	config := backends.LockConfig{Enabled: true}
	if document.ObjectLockEnabled != "Enabled" {
		return malformedXML()
	}
	if document.Rule != nil {
		if document.Rule.DefaultRetention == nil {
			return malformedXML()
		}
		if err := document.Rule.DefaultRetention.into(&config); err != nil {
			return err
		}
	}
	return c.done(c.Service.SetLockConfig(c.ctx, c.bucket, config))
}

// into checks a default retention: one mode, and days or years.
func (d lockDefault) into(config *backends.LockConfig) error {
	config.Mode = backends.LockMode(d.Mode)
	if !validMode(config.Mode) || (d.Days == nil) == (d.Years == nil) {
		return malformedXML()
	}
	if d.Days != nil {
		config.Days = *d.Days
		return checkPeriod("Days", *d.Days, maxLockDays)
	}
	config.Years = *d.Years
	return checkPeriod("Years", *d.Years, maxLockYears)
}

func checkPeriod(name string, n, limit int) error {
	switch {
	case n < 1:
		return invalidArgument("Default retention period must be a positive integer value.", name, strconv.Itoa(n))
	case n > limit:
		return invalidArgument("Default retention period too large.", name, strconv.Itoa(n))
	}
	return nil
}

type retentionDocument struct {
	XMLName         xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ Retention"`
	Mode            string
	RetainUntilDate string
}

type holdDocument struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ LegalHold"`
	Status  string
}

func noObjectLock() *fault {
	return refused(http.StatusNotFound, "NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration.")
}

func (c *call) getRetention() error {
	lock, err := c.Service.Lock(c.ctx, c.bucket, c.key, c.query.Get("versionId"))
	if err != nil {
		return err
	}
	if lock.Mode == "" {
		return noObjectLock()
	}
	return c.writeXML(http.StatusOK, retentionDocument{Mode: string(lock.Mode), RetainUntilDate: iso(lock.Until)})
}

// putRetention sets a retention. A document without mode and date removes it.
func (c *call) putRetention() error {
	var document struct{ Mode, RetainUntilDate string }
	if err := c.readConfig("Retention", &document); err != nil {
		return err
	}
	mode, until := backends.LockMode(document.Mode), time.Time{}
	if mode != "" || document.RetainUntilDate != "" {
		if !validMode(mode) {
			return malformedXML()
		}
		var err error
		if _, err = time.Parse(time.RFC3339, document.RetainUntilDate); err != nil {
			return malformedXML()
		}
		if until, err = c.parseUntil(document.RetainUntilDate); err != nil {
			return err
		}
	}
	bypass, err := c.bypass(c.key)
	if err != nil {
		return err
	}
	return c.done(c.Service.SetRetention(c.ctx, c.bucket, c.key, c.query.Get("versionId"), mode, until, bypass))
}

// getHold tells a hold that was lifted from one that never was.
func (c *call) getHold() error {
	lock, err := c.Service.Lock(c.ctx, c.bucket, c.key, c.query.Get("versionId"))
	if err != nil {
		return err
	}
	status := holdStatus(lock)
	if status == "" {
		return noObjectLock()
	}
	return c.writeXML(http.StatusOK, holdDocument{Status: status})
}

func (c *call) putHold() error {
	var document struct{ Status string }
	text, err := c.readBody()
	if err != nil {
		return err
	}
	if err := decodeXML(text, "LegalHold", &document); err != nil { // also where there is none, as on S3
		return err
	}
	if document.Status != "ON" && document.Status != "OFF" {
		return malformedXML()
	}
	return c.done(c.Service.SetHold(c.ctx, c.bucket, c.key, c.query.Get("versionId"), document.Status == "ON"))
}
