package s3api

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

// S3's limits ("PutBucketLifecycleConfiguration").
const (
	maxRules       = 1000
	maxRuleID      = 255
	maxRulePrefix  = 1024
	maxNewestOlder = 100
)

// getLifecycle: where the backend carries out no rules, there is nothing that could be
// configured or not.
func (c *call) getLifecycle() error {
	if err := c.Service.CarriesLifecycle(c.bucket); err != nil {
		return err
	}
	text, err := c.configured(configLifecycle)
	if err == nil && text == nil {
		err = refused(http.StatusNotFound, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist", field{"BucketName", c.bucketName})
	}
	if err != nil {
		return err
	}
	return c.writeStored(text)
}

// putLifecycle has the backend carry out the rules and keeps them as they came, but
// for the names that S3 gives to those that have none.
func (c *call) putLifecycle() error {
	var document node
	if err := c.readConfig("LifecycleConfiguration", &document); err != nil {
		return err
	}
	rules, err := lifecycleRules(&document)
	if err != nil {
		return err
	}
	text, err := marshal(document.root())
	if err != nil {
		return err
	}
	if len(text) > objects.MaxConfig {
		return messageTooLong()
	}
	if err = c.Service.SetLifecycle(c.ctx, c.bucket, rules); err == nil {
		err = c.Service.SetBucketConfig(c.ctx, c.bucket, configLifecycle, text)
	}
	return c.done(err)
}

func (c *call) deleteLifecycle() error {
	err := c.Service.SetLifecycle(c.ctx, c.bucket, nil)
	if err == nil {
		err = c.Service.SetBucketConfig(c.ctx, c.bucket, configLifecycle, nil)
	}
	return c.gone(err)
}

// lifecycleRules judges a document, gives names to rules that have none, and returns
// those rules that are enabled. What is not understood is refused: to leave out a
// condition would delete more than was meant.
func lifecycleRules(document *node) ([]backends.LifecycleRule, error) {
	if n := len(document.Children); n == 0 || n > maxRules {
		return nil, malformedXML()
	}
	var rules []backends.LifecycleRule
	names := map[string]bool{}
	for i := range document.Children {
		r, enabled, err := lifecycleRule(&document.Children[i])
		if err != nil {
			return nil, err
		}
		if names[r.ID] {
			return nil, invalidArgument("Rule ID must be unique. Found same ID for more than one rule", "ID", r.ID)
		}
		names[r.ID] = true
		if enabled {
			rules = append(rules, r)
		}
	}
	return rules, nil
}

func lifecycleRule(e *node) (r backends.LifecycleRule, enabled bool, err error) {
	if e.XMLName.Local != "Rule" {
		return r, false, malformedXML()
	}
	if slices.ContainsFunc(e.Children, func(c node) bool { return strings.HasSuffix(c.XMLName.Local, "Transition") }) {
		return r, false, notImplemented("").with(field{"Element", "Transition"})
	}
	nameRule(e)
	parts, err := e.parts("ID", "Status", "Prefix", "Filter", "Expiration", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload")
	if err != nil {
		return r, false, err
	}
	status := parts["Status"].text()
	if status != "Enabled" && status != "Disabled" {
		return r, false, malformedXML()
	}
	for _, read := range []func(*backends.LifecycleRule, map[string]*node) error{ruleID, ruleScope, ruleExpiration, ruleNoncurrent, ruleAbort, ruleActs} {
		if err := read(&r, parts); err != nil {
			return r, false, err
		}
	}
	return r, status == "Enabled", nil
}

// nameRule gives a name to a rule that has none, as S3 does.
func nameRule(rule *node) {
	empty := func(c node) bool { return c.XMLName.Local == "ID" && c.text() == "" && len(c.Children) == 0 }
	if slices.ContainsFunc(rule.Children, func(c node) bool { return c.XMLName.Local == "ID" && !empty(c) }) {
		return
	}
	rule.Children = append([]node{leaf("ID", rand.Text())}, slices.DeleteFunc(rule.Children, empty)...)
}

func ruleID(r *backends.LifecycleRule, rule map[string]*node) error {
	id := rule["ID"]
	if len(id.Children) > 0 {
		return malformedXML()
	}
	if r.ID = id.Text; len(r.ID) > maxRuleID {
		return invalidArgument("ID length should not exceed allowed limit of "+strconv.Itoa(maxRuleID), "ID", "")
	}
	return nil
}

// ruleScope reads what a rule applies to: a Filter or, as was usual before there were
// filters, a Prefix.
func ruleScope(r *backends.LifecycleRule, rule map[string]*node) error {
	prefix, filter := rule["Prefix"], rule["Filter"]
	if (prefix == nil) == (filter == nil) {
		return malformedXML()
	}
	if prefix != nil {
		return rulePrefix(r, prefix)
	}
	conditions := filter
	if len(filter.Children) > 1 {
		return malformedXML()
	}
	if len(filter.Children) == 1 && filter.Children[0].XMLName.Local == "And" {
		if conditions = &filter.Children[0]; len(conditions.Children) < 2 {
			return malformedXML()
		}
	}
	return ruleConditions(r, conditions)
}

func rulePrefix(r *backends.LifecycleRule, prefix *node) error {
	if len(prefix.Children) > 0 {
		return malformedXML()
	}
	if r.Prefix = prefix.Text; len(r.Prefix) > maxRulePrefix {
		return invalidRequest("The maximum size of a prefix is " + strconv.Itoa(maxRulePrefix) + ".")
	}
	return nil
}

// ruleConditions reads a Filter or an And.
func ruleConditions(r *backends.LifecycleRule, conditions *node) error {
	seen := map[string]bool{}
	for i := range conditions.Children {
		c := &conditions.Children[i]
		name := c.XMLName.Local
		if seen[name] && name != "Tag" {
			return malformedXML()
		}
		seen[name] = true
		if err := ruleCondition(r, c); err != nil {
			return err
		}
	}
	if r.Below > 0 && r.AtLeast >= r.Below {
		return invalidRequest("'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.")
	}
	return nil
}

func ruleCondition(r *backends.LifecycleRule, c *node) error {
	switch c.XMLName.Local {
	case "Prefix":
		return rulePrefix(r, c)
	case "Tag":
		return ruleTag(r, c)
	case "ObjectSizeGreaterThan":
		n, err := strconv.ParseInt(c.text(), 10, 64)
		if err != nil || n < 0 || n > maxRuleSize {
			return malformedXML()
		}
		r.AtLeast = n + 1
		return nil
	case "ObjectSizeLessThan":
		n, err := strconv.ParseInt(c.text(), 10, 64)
		if err != nil || n < 1 || n > maxRuleSize {
			return malformedXML()
		}
		r.Below = n
		return nil
	}
	return malformedXML()
}

// maxRuleSize is beyond all objects, in bytes.
const maxRuleSize = 1 << 50

func ruleTag(r *backends.LifecycleRule, tag *node) error {
	parts, err := tag.parts("Key", "Value")
	if err != nil || parts["Key"] == nil || parts["Value"] == nil {
		return malformedXML()
	}
	key := parts["Key"].Text
	if _, ok := r.Tags[key]; ok {
		return invalidRequest("Duplicate Tag Keys are not allowed.")
	}
	if r.Tags == nil {
		r.Tags = backends.Tags{}
	}
	r.Tags[key] = parts["Value"].Text
	if r.Tags.Check() != nil {
		return bad("InvalidTag", "The TagKey or TagValue you have provided is invalid")
	}
	return nil
}

// ruleExpiration: of its three forms there is exactly one.
func ruleExpiration(r *backends.LifecycleRule, rule map[string]*node) error {
	e := rule["Expiration"]
	if e == nil {
		return nil
	}
	parts, err := e.parts("Days", "Date", "ExpiredObjectDeleteMarker")
	if err != nil || len(parts) != 1 {
		return malformedXML()
	}
	if days := parts["Days"]; days != nil {
		r.ExpireDays, err = days.positive("Days", "Expiration")
		return err
	}
	if date := parts["Date"]; date != nil {
		if r.ExpireDate, err = time.Parse(time.RFC3339Nano, date.text()); err != nil {
			return malformedXML()
		}
		if !r.ExpireDate.UTC().Truncate(24 * time.Hour).Equal(r.ExpireDate) {
			return invalidArgument("'Date' must be at midnight GMT", "Date", date.text())
		}
		return nil
	}
	marker := parts["ExpiredObjectDeleteMarker"].text()
	if marker != "true" && marker != "false" {
		return malformedXML()
	}
	r.ExpireMarkers = marker == "true"
	if r.ExpireMarkers && len(r.Tags) > 0 {
		return invalidRequest("Rule does not support expired object delete marker with tag filter")
	}
	return nil
}

func ruleNoncurrent(r *backends.LifecycleRule, rule map[string]*node) error {
	e := rule["NoncurrentVersionExpiration"]
	if e == nil {
		return nil
	}
	const action = "NoncurrentVersionExpiration"
	parts, err := e.parts("NoncurrentDays", "NewerNoncurrentVersions")
	if err != nil || parts["NoncurrentDays"] == nil {
		return malformedXML()
	}
	if r.NoncurrentDays, err = parts["NoncurrentDays"].positive("NoncurrentDays", action); err != nil {
		return err
	}
	newer := parts["NewerNoncurrentVersions"]
	if newer == nil {
		return nil
	}
	if r.NoncurrentKeep, err = newer.positive("NewerNoncurrentVersions", action); err == nil && r.NoncurrentKeep > maxNewestOlder {
		err = invalidArgument("'NewerNoncurrentVersions' for "+action+" action must be at most "+strconv.Itoa(maxNewestOlder), "NewerNoncurrentVersions", newer.text())
	}
	return err
}

func ruleAbort(r *backends.LifecycleRule, rule map[string]*node) error {
	e := rule["AbortIncompleteMultipartUpload"]
	if e == nil {
		return nil
	}
	parts, err := e.parts("DaysAfterInitiation")
	if err != nil || len(parts) != 1 {
		return malformedXML()
	}
	if len(r.Tags) > 0 {
		return invalidRequest("AbortIncompleteMultipartUpload cannot be specified with Tags.")
	}
	if r.AtLeast > 0 || r.Below > 0 {
		return invalidRequest("AbortIncompleteMultipartUpload cannot be specified with Object Size.")
	}
	r.AbortDays, err = parts["DaysAfterInitiation"].positive("DaysAfterInitiation", "AbortIncompleteMultipartUpload")
	return err
}

// ruleActs wants a rule to do something.
func ruleActs(_ *backends.LifecycleRule, rule map[string]*node) error {
	for _, action := range []string{"Expiration", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"} {
		if rule[action] != nil {
			return nil
		}
	}
	return invalidRequest("At least one action needs to be specified in a rule.")
}
