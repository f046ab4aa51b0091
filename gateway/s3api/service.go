package s3api

import (
	"context"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/objects"
)

// Service is what the handlers need of objects.Service; its comments hold. It may
// be called concurrently.
type Service interface {
	BucketService
	ObjectService
	UploadService
	VersionService
}

// BucketService makes, finds and configures buckets.
type BucketService interface {
	CreateBucketOn(ctx context.Context, principal, name, store string) error
	CreateLockedBucketOn(ctx context.Context, principal, name, store string) error
	DeleteBucket(ctx context.Context, b keys.Bucket) error
	HeadBucket(ctx context.Context, b keys.Bucket) error
	Bucket(ctx context.Context, name string) (keys.Bucket, error)
	Buckets(ctx context.Context) ([]keys.Bucket, error)
	BucketConfig(ctx context.Context, b keys.Bucket, name string) ([]byte, error)
	SetBucketConfig(ctx context.Context, b keys.Bucket, name string, data []byte) error
	CarriesLifecycle(b keys.Bucket) error
	SetLifecycle(ctx context.Context, b keys.Bucket, rules []backends.LifecycleRule) error
}

// ObjectService reads and writes objects.
type ObjectService interface {
	Put(ctx context.Context, r objects.PutRequest) (objects.PutResult, error)
	Get(ctx context.Context, r objects.GetRequest) (*objects.Reader, error)
	Head(ctx context.Context, r objects.GetRequest) (objects.Stat, objects.Span, error)
	PartsOf(ctx context.Context, r objects.GetRequest) (objects.Stat, []objects.PartInfo, error)
	Delete(ctx context.Context, r objects.DeleteRequest) (backends.Deleted, error)
	List(ctx context.Context, r objects.ListRequest) (*objects.ListResult, error)
	Copy(ctx context.Context, r objects.CopyRequest) (objects.CopyResult, error)
	Tags(ctx context.Context, b keys.Bucket, key, version string) (backends.Tags, string, error)
	SetTags(ctx context.Context, b keys.Bucket, key, version string, tags backends.Tags) (string, error)
}

// UploadService puts objects together from parts.
type UploadService interface {
	CreateUpload(ctx context.Context, r objects.CreateUploadRequest) (objects.UploadRef, error)
	PutPart(ctx context.Context, r objects.PutPartRequest) (objects.PartResult, error)
	CopyPart(ctx context.Context, r objects.CopyPartRequest) (objects.CopyPartResult, error)
	Complete(ctx context.Context, r objects.CompleteRequest) (objects.PutResult, error)
	Abort(ctx context.Context, r objects.UploadRef) error
	AbortIf(ctx context.Context, r objects.UploadRef, began time.Time) error
	ListParts(ctx context.Context, r objects.PartsRequest) (*objects.PartsResult, error)
	ListUploads(ctx context.Context, r objects.UploadsRequest) (*backends.UploadsPage, error)
	UploadChecksums(ctx context.Context, b keys.Bucket, uploads []backends.Upload) []objects.UploadChecksum
}

// VersionService keeps versions, and keeps them from being deleted.
type VersionService interface {
	Versioning(ctx context.Context, b keys.Bucket) (backends.Versioning, error)
	SetVersioning(ctx context.Context, b keys.Bucket, state backends.Versioning) error
	ListVersions(ctx context.Context, r objects.VersionsRequest) (*objects.VersionsResult, error)
	LockConfig(ctx context.Context, b keys.Bucket) (backends.LockConfig, error)
	SetLockConfig(ctx context.Context, b keys.Bucket, c backends.LockConfig) error
	Lock(ctx context.Context, b keys.Bucket, key, version string) (backends.Lock, error)
	SetRetention(ctx context.Context, b keys.Bucket, key, version string, mode backends.LockMode, until time.Time, bypass bool) error
	SetHold(ctx context.Context, b keys.Bucket, key, version string, hold bool) error
}
