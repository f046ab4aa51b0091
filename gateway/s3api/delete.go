package s3api

import (
	"encoding/xml"
	"net/http"
	"strconv"
	"sync"

	"chatelaine/backends"
	"chatelaine/gateway/objects"
)

const (
	// maxDeletes is how many keys one DeleteObjects may name.
	maxDeletes = 1000
	// deleters is how many of them are deleted at the same time.
	deleters = 16
)

func (c *call) deleteObject() error {
	bypass, err := c.bypass(c.key)
	if err != nil {
		return err
	}
	request := objects.DeleteRequest{
		Bucket: c.bucket, Key: c.key, Version: c.query.Get("versionId"), IfMatch: etags(c.header.Values("If-Match")),
		BypassGovernance: bypass,
	}
	if request.IfSize, err = statedSize(ifSizeHeader, c.header.Get(ifSizeHeader)); err != nil {
		return err
	}
	if request.IfModified, err = statedTime(ifModifiedHeader, c.header.Get(ifModifiedHeader)); err != nil {
		return err
	}
	deleted, err := c.Service.Delete(c.ctx, request)
	if err != nil {
		return err
	}
	h := c.w.Header()
	setIf(h, "X-Amz-Version-Id", deleted.Version)
	if deleted.Marker {
		h.Set("X-Amz-Delete-Marker", "true")
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

type deleteDocument struct {
	Quiet   bool
	Objects deleteList `xml:"Object"`
}

// deleteList grows no longer than one request may name keys.
type deleteList []deleteEntry

// UnmarshalXML implements xml.Unmarshaler: it takes one more.
func (l *deleteList) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	if len(*l) == maxDeletes {
		return malformedXML()
	}
	var entry deleteEntry
	if err := d.DecodeElement(&entry, &start); err != nil {
		return err
	}
	*l = append(*l, entry)
	return nil
}

// deleteEntry is one object to delete, where what is stated of it holds.
type deleteEntry struct {
	Key              string
	VersionId        string //nolint:revive // S3's name of the element
	ETag             string
	Size             string
	LastModifiedTime string
}

type deleteResult struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ DeleteResult"`
	Deleted []deletedElement
	Errors  []deleteError `xml:"Error"`
}

type deletedElement struct {
	Key                   string
	VersionID             string `xml:"VersionId,omitempty"`
	DeleteMarker          string `xml:",omitempty"`
	DeleteMarkerVersionID string `xml:"DeleteMarkerVersionId,omitempty"`
}

type deleteError struct {
	Key       string
	VersionID string `xml:"VersionId,omitempty"`
	Code      string
	Message   string
}

// deleteObjects deletes up to 1000 keys. Access is decided for each, and what goes
// wrong with one says nothing about the others.
func (c *call) deleteObjects() error {
	document, err := c.readDeletes()
	if err != nil {
		return err
	}
	outcomes := c.deleteAll(document.Objects)
	var result deleteResult
	for i, entry := range document.Objects {
		switch o := outcomes[i]; {
		case o.err != nil:
			result.Errors = append(result.Errors, c.deleteError(entry, o.err))
		case !document.Quiet:
			result.Deleted = append(result.Deleted, deletedOf(entry, o.deleted))
		}
	}
	return c.writeXML(http.StatusOK, result)
}

func (c *call) readDeletes() (deleteDocument, error) {
	var document deleteDocument
	v, err := c.openVerified()
	if err != nil {
		return document, err
	}
	if v.stated.algorithm == "" && v.stated.md5 == nil {
		return document, invalidRequest("Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
	}
	if err := readDocument(v, "Delete", &document); err != nil {
		return document, err
	}
	if n := len(document.Objects); n == 0 || n > maxDeletes {
		return document, malformedXML()
	}
	for _, entry := range document.Objects {
		if entry.Key == "" {
			return document, malformedXML()
		}
	}
	return document, nil
}

type deleteOutcome struct {
	deleted backends.Deleted
	err     error
}

// deleteAll runs the deletes, a bounded number at a time.
func (c *call) deleteAll(entries []deleteEntry) []deleteOutcome {
	outcomes := make([]deleteOutcome, len(entries))
	next := make(chan int)
	var running sync.WaitGroup
	for range min(deleters, len(entries)) {
		running.Go(func() {
			for i := range next {
				outcomes[i].deleted, outcomes[i].err = c.deleteEntry(entries[i])
			}
		})
	}
	for i := range entries {
		next <- i
	}
	close(next)
	running.Wait()
	return outcomes
}

// deleteEntry may run concurrently with itself: it only reads c.
func (c *call) deleteEntry(entry deleteEntry) (backends.Deleted, error) {
	if len(entry.Key) > objects.MaxKey {
		return backends.Deleted{}, keyTooLong(len(entry.Key))
	}
	action := "s3:DeleteObject"
	if entry.VersionId != "" {
		action = "s3:DeleteObjectVersion"
	}
	if entry.VersionId != "" && !validVersion(entry.VersionId) {
		return backends.Deleted{}, invalidVersion(entry.VersionId)
	}
	if err := c.authorize(action, entry.Key); err != nil {
		return backends.Deleted{}, err
	}
	bypass, err := c.bypass(entry.Key)
	if err != nil {
		return backends.Deleted{}, err
	}
	request := objects.DeleteRequest{Bucket: c.bucket, Key: entry.Key, Version: entry.VersionId, BypassGovernance: bypass}
	if entry.ETag != "" {
		request.IfMatch = etags([]string{entry.ETag})
	}
	if request.IfSize, err = statedSize("Size", entry.Size); err != nil {
		return backends.Deleted{}, err
	}
	if request.IfModified, err = statedTime("LastModifiedTime", entry.LastModifiedTime); err != nil {
		return backends.Deleted{}, err
	}
	return c.Service.Delete(c.ctx, request)
}

func (c *call) deleteError(entry deleteEntry, err error) deleteError {
	f := c.faultOf(err)
	if f.alarm {
		c.w.alarm, c.cause = true, err
	}
	return deleteError{Key: entry.Key, VersionID: entry.VersionId, Code: f.code, Message: f.message}
}

// deletedOf tells a delete marker that was made from one that was deleted.
func deletedOf(entry deleteEntry, d backends.Deleted) deletedElement {
	e := deletedElement{Key: entry.Key, VersionID: entry.VersionId}
	if d.Marker {
		e.DeleteMarker, e.DeleteMarkerVersionID = strconv.FormatBool(true), d.Version
	}
	return e
}
