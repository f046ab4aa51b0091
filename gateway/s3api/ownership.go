package s3api

import (
	"encoding/xml"
	"errors"
	"net/http"
	"slices"

	"chatelaine/gateway/objects"
)

// What is the same for every bucket of the gateway: its owner owns all objects and
// nobody else has a right by an ACL or a policy; all is sealed; no feature is on
// that the gateway does not have. Reads say so, and writes that ask for just that
// succeed.

// deleted answers the removal of what is as if it had been removed.
func (c *call) deleted() error { return c.gone(nil) }

type publicAccessDocument struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ PublicAccessBlockConfiguration"`
	publicAccess
}

type publicAccess struct {
	BlockPublicAcls, IgnorePublicAcls, BlockPublicPolicy, RestrictPublicBuckets bool
}

func (c *call) getPublicAccess() error {
	return c.writeXML(http.StatusOK, publicAccessDocument{publicAccess: publicAccess{true, true, true, true}})
}

// putPublicAccess: nothing can be made public.
func (c *call) putPublicAccess() error {
	var document publicAccess
	if err := c.readConfig("PublicAccessBlockConfiguration", &document); err != nil {
		return err
	}
	if document != (publicAccess{true, true, true, true}) {
		return notImplemented("").with(field{"Element", "PublicAccessBlockConfiguration"})
	}
	return c.done(nil)
}

// getPolicy serves GetBucketPolicyStatus too: there is no policy to have one.
func (c *call) getPolicy() error {
	return refused(http.StatusNotFound, "NoSuchBucketPolicy", "The bucket policy does not exist.", field{"BucketName", c.bucketName})
}

type encryptionDocument struct {
	XMLName   xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ServerSideEncryptionConfiguration"`
	Algorithm string   `xml:"Rule>ApplyServerSideEncryptionByDefault>SSEAlgorithm"`
	Key       string   `xml:"Rule>ApplyServerSideEncryptionByDefault>KMSMasterKeyID,omitempty"`
	BucketKey bool     `xml:"Rule>BucketKeyEnabled"`
}

func (c *call) getEncryption() error {
	if c.bucket.MD5 { // as setEncryption
		return c.writeXML(http.StatusOK, encryptionDocument{Algorithm: "AES256"})
	}
	return c.writeXML(http.StatusOK, encryptionDocument{Algorithm: "aws:kms", Key: c.bucket.KEK, BucketKey: true})
}

// putEncryption takes both kinds that S3 has, and no key but the bucket's.
func (c *call) putEncryption() error {
	var document struct {
		Rules []struct {
			Default *struct{ SSEAlgorithm, KMSMasterKeyID string } `xml:"ApplyServerSideEncryptionByDefault"`
		} `xml:"Rule"`
	}
	if err := c.readConfig("ServerSideEncryptionConfiguration", &document); err != nil {
		return err
	}
	if len(document.Rules) != 1 {
		return malformedXML()
	}
	if d := document.Rules[0].Default; d != nil {
		if !slices.Contains([]string{"AES256", "aws:kms", "aws:kms:dsse"}, d.SSEAlgorithm) {
			return malformedXML()
		}
		if d.SSEAlgorithm == "aws:kms:dsse" || d.KMSMasterKeyID != "" && d.KMSMasterKeyID != c.bucket.KEK {
			return notImplemented("").with(field{"Element", "ApplyServerSideEncryptionByDefault"})
		}
	}
	return c.done(nil)
}

// unset is a document of a configuration that nobody has made.
func (c *call) unset(root string) error {
	return c.writeXML(http.StatusOK, struct{ XMLName xml.Name }{xml.Name{Space: namespace, Local: root}})
}

func (c *call) getAcceleration() error { return c.unset("AccelerateConfiguration") }
func (c *call) getLogging() error      { return c.unset("BucketLoggingStatus") }

// putLogging takes the document that turns logging off.
func (c *call) putLogging() error {
	var document struct {
		LoggingEnabled *anyElement
	}
	if err := c.readConfig("BucketLoggingStatus", &document); err != nil {
		return err
	}
	if document.LoggingEnabled != nil {
		return notImplemented("").with(field{"Element", "LoggingEnabled"})
	}
	return c.done(nil)
}

func (c *call) getPayment() error {
	return c.writeXML(http.StatusOK, struct {
		XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ RequestPaymentConfiguration"`
		Payer   string
	}{Payer: "BucketOwner"})
}

func (c *call) putPayment() error {
	var document struct{ Payer string }
	if err := c.readConfig("RequestPaymentConfiguration", &document); err != nil {
		return err
	}
	switch document.Payer {
	case "BucketOwner":
		return c.done(nil)
	case "Requester":
		return notImplemented("").with(field{"Element", "Payer"})
	}
	return malformedXML()
}

// writeStored answers with a document that the gateway made and kept.
func (c *call) writeStored(text []byte) error {
	h := c.w.Header()
	h.Set("Content-Type", "application/xml")
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(text)
	return nil
}

// configured reads what the gateway keeps of a bucket; nil where there is nothing.
func (c *call) configured(name string) ([]byte, error) {
	text, err := c.Service.BucketConfig(c.ctx, c.bucket, name)
	if errors.Is(err, objects.ErrNoConfig) {
		return nil, nil
	}
	return text, err
}
