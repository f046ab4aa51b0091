package cloud

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"chatelaine/backends"
)

// Position is where a listing goes on: the service's page of that Token among the names
// from Start on, above the row After. A driver uses what its service knows. Token is
// opaque.
type Position struct {
	Token string `json:"t,omitempty"`
	Start string `json:"s,omitempty"`
	After string `json:"a,omitempty"`
}

// ParsePosition reads a Page's Token; backends.ErrInvalidName where it is not of its
// making.
func ParsePosition(token string) (p Position, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		return Position{}, fmt.Errorf("%w: token %.40q", backends.ErrInvalidName, token)
	}
	return p, nil
}

func (p Position) token() (string, error) {
	raw, err := json.Marshal(p)
	return base64.RawURLEncoding.EncodeToString(raw), err
}

// Row is a line of a listing: an object, or a common prefix, which has no Info.
type Row struct {
	Name string
	Info *backends.Info
}

// Listing makes pages of the contract from those of a service, which may end anywhere.
type Listing struct {
	// Fetch reads one page of the service's, in order, of which missing rows are wanted.
	// It may have any number, and rows that are not above at.After. Of next all but After
	// counts; where that is zero the listing ends.
	Fetch func(ctx context.Context, at Position, missing int) (rows []Row, next Position, err error)
	// Reopen is where the rest of a page of the service's is read from, which began at the
	// position given and whose last row that fitted is its After. nil: from there, once more.
	Reopen func(at Position) Position
}

// Page reads a page of at most limit rows, 1000 where that is out of bounds.
func (l Listing) Page(ctx context.Context, at Position, limit int) (*backends.Page, error) {
	if limit < 1 || limit > backends.MaxPage {
		limit = backends.MaxPage
	}
	p := &pager{Listing: l, at: at, left: limit, page: &backends.Page{}}
	for more := true; more; {
		var err error
		if more, err = p.step(ctx); err != nil {
			return nil, err
		}
	}
	return p.page, nil
}

type pager struct {
	Listing
	at   Position
	left int // rows that are missing
	page *backends.Page
}

// step adds one of the service's pages and says whether to go on.
func (p *pager) step(ctx context.Context) (more bool, err error) {
	rows, next, err := p.Fetch(ctx, p.at, p.left)
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		if r.Name <= p.at.After {
			continue
		}
		if p.left == 0 { // r has been read in vain
			if p.Reopen != nil {
				p.at = p.Reopen(p.at)
			}
			return false, p.truncate()
		}
		p.add(r)
	}
	if next.Token == "" && next.Start == "" {
		return false, nil
	}
	p.at.Token, p.at.Start = next.Token, next.Start
	if p.left == 0 {
		return false, p.truncate()
	}
	return true, nil
}

func (p *pager) add(r Row) {
	p.left--
	p.at.After = r.Name
	if r.Info == nil {
		p.page.Prefixes = append(p.page.Prefixes, r.Name)
	} else {
		p.page.Entries = append(p.page.Entries, *r.Info)
	}
}

func (p *pager) truncate() (err error) {
	p.page.Truncated = true
	p.page.Token, err = p.at.token()
	return err
}
