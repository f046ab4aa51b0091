package azurestore

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"golang.org/x/sync/errgroup"

	"chatelaine/backends"
)

const (
	// blockSize is how much one request copies. maxBlocks of them are a blob's limit,
	// and maxBlock is the largest (Azure, "Put Block From URL").
	blockSize = 64 << 20
	maxBlock  = 4000 << 20
	maxBlocks = 50000
	// copies is how many blocks are under way for one object.
	copies = 16
	// assemblies is how often blocks are staged anew that somebody else's commit to the
	// same name has thrown away.
	assemblies = 5
	// signatureLife is for the signature under which the service reads a source.
	signatureLife = 6 * time.Hour

	storageScope = "https://storage.azure.com/.default"
)

// piece is a range of a blob of a certain ETag, to be copied.
type piece struct {
	at           place
	etag         azcore.ETag
	offset, size int64
}

// assemble makes a blob of pieces, in order. Blocks of random names are staged, and
// then committed at once: nothing is visible before, and what is staged and never
// committed Azure forgets after a week. A commit throws away all other blocks that are
// staged for its name; where that happens in between, the blocks are staged again.
func (s *Store) assemble(ctx context.Context, dst place, pieces []piece, props properties, w write) (backends.Written, error) {
	blocks := cut(pieces)
	return w.settle(ctx, s, dst, func() (backends.Written, error) {
		for range assemblies {
			written, err := s.stageAndCommit(ctx, dst, blocks, props, w)
			if !bloberror.HasCode(err, bloberror.InvalidBlockList) {
				return written, err
			}
		}
		return backends.Written{}, fmt.Errorf("%w: others write to the same key", backends.ErrConflict)
	})
}

// cut makes pieces small enough to be blocks, and few enough.
func cut(pieces []piece) (blocks []piece) {
	total := int64(0)
	for _, p := range pieces {
		total += p.size
	}
	size := int64(blockSize)
	for total/size+int64(len(pieces)) > maxBlocks && size < maxBlock {
		size = min(2*size, maxBlock)
	}
	for _, p := range pieces {
		for p.size > 0 {
			b := p
			b.size = min(p.size, size)
			blocks = append(blocks, b)
			p.offset, p.size = p.offset+b.size, p.size-b.size
		}
	}
	return blocks
}

func (s *Store) stageAndCommit(ctx context.Context, dst place, blocks []piece, props properties, w write) (backends.Written, error) {
	client, ids := s.blob(dst.bucket, dst.name), blockIDs(len(blocks))
	group, under := errgroup.WithContext(ctx)
	group.SetLimit(copies)
	for i, b := range blocks {
		group.Go(func() error { return s.stage(under, client, ids[i], b) })
	}
	if err := group.Wait(); err != nil {
		return backends.Written{}, err
	}
	out, err := client.CommitBlockList(ctx, ids, &blockblob.CommitBlockListOptions{
		Metadata: props.metadata, HTTPHeaders: props.headers, Tags: props.tags, AccessConditions: w.conditions(),
	})
	if err != nil {
		return backends.Written{}, err
	}
	return backends.Written{ETag: etagOf(out.ETag), Modified: deref(out.LastModified)}, nil
}

// blockIDs are n names of blocks that nobody else has. All of a blob's must be of one
// length.
func blockIDs(n int) []string {
	raw := make([]byte, 20)
	_, _ = rand.Read(raw[:16]) // it never fails
	ids := make([]string, n)
	for i := range ids {
		binary.BigEndian.PutUint32(raw[16:], uint32(i))
		ids[i] = base64.StdEncoding.EncodeToString(raw)
	}
	return ids
}

// stage copies a piece within the service or, where it cannot, through the gateway.
func (s *Store) stage(ctx context.Context, client *blockblob.Client, id string, p piece) error {
	if s.streamed.Load() {
		return s.stream(ctx, client, id, p)
	}
	options := &blockblob.StageBlockFromURLOptions{
		Range:                          blob.HTTPRange{Offset: p.offset, Count: p.size},
		SourceModifiedAccessConditions: &blob.SourceModifiedAccessConditions{SourceIfMatch: &p.etag},
	}
	source, err := s.authorize(ctx, p.at, options)
	if err != nil {
		return err
	}
	_, err = client.StageBlockFromURL(ctx, id, source, options)
	var answer *azcore.ResponseError
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotImplemented {
		s.streamed.Store(true)
		return s.stream(ctx, client, id, p)
	}
	return err
}

// authorize is the URL of a source under which the service itself may read it.
func (s *Store) authorize(ctx context.Context, at place, options *blockblob.StageBlockFromURLOptions) (string, error) {
	source := s.blob(at.bucket, at.name)
	switch {
	case s.cfg.Secret.value == "":
		token, err := s.cfg.Credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{storageScope}})
		if err != nil {
			return "", fmt.Errorf("%w: getting a token: %w", backends.ErrDenied, err)
		}
		bearer := "Bearer " + token.Token
		options.CopySourceAuthorization = &bearer
	case !s.cfg.Secret.isSAS():
		return source.GetSASURL(sas.BlobPermissions{Read: true}, time.Now().Add(signatureLife), nil)
	}
	return source.URL(), nil
}

// stream is stage through the gateway.
func (s *Store) stream(ctx context.Context, client *blockblob.Client, id string, p piece) error {
	out, err := s.blob(p.at.bucket, p.at.name).DownloadStream(ctx, &blob.DownloadStreamOptions{
		Range: blob.HTTPRange{Offset: p.offset, Count: p.size}, AccessConditions: ifMatch(p.etag),
	})
	if err != nil {
		return err
	}
	defer out.Body.Close()
	body, err := s.newPayload(backends.Body{Reader: io.LimitReader(out.Body, p.size), Size: p.size})
	if err != nil {
		return err
	}
	reader, validation := body.body()
	staged, err := client.StageBlock(body.context(ctx), id, reader, &blockblob.StageBlockOptions{TransactionalValidation: validation})
	return body.finish(staged.ContentCRC64, err)
}
