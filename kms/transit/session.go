package transit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"go.uber.org/zap"

	"chatelaine/kms"
)

// Logins are apart by firstPause, and twice as much after each that did not help, up
// to maxPause; all give or take a quarter. A token that lived for calm did help.
const (
	firstPause = 2 * time.Second
	maxPause   = time.Minute
	calm       = time.Minute
	// patience is how long a call waits for a login that may not begin yet.
	patience = 3 * time.Second
	// trust is how long a token that Vault has just confirmed is not asked about again.
	trust = time.Second
)

// session keeps a token: it renews it, and logs in again when Vault knows it no more,
// once for all callers and never often.
type session struct {
	http     *http.Client
	make     func(token string) (*api.Client, error)
	client   *api.Client // with the token
	auth     Auth
	deadline time.Duration
	log      *zap.Logger

	ctx     context.Context // ends with close
	end     context.CancelFunc
	work    sync.WaitGroup // the renewal, and logins
	changed chan struct{}  // a token was obtained
	asking  chan struct{}  // held by who asks Vault about the token

	mu         sync.Mutex
	generation uint64 // grows with each token
	obtained   time.Time
	confirmed  time.Time     // when Vault said last that the token is good
	expires    time.Time     // zero: never
	ttl        time.Duration // that it had at first
	renewable  bool
	flight     *flight // the login under way
	fruitless  int     // logins without a calm after them
	next       time.Time
	last       error // of the last login
}

// flight is a login that any number of callers wait for.
type flight struct {
	done chan struct{} // closed when it has ended
	err  error         // before done is closed
}

func newSession(ctx context.Context, cfg Config) (*session, error) {
	through, err := newHTTP(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kms.ErrInvalid, err)
	}
	client := func(token string) (*api.Client, error) { return newClient(cfg, through, token) }
	first, err := client("")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kms.ErrInvalid, err)
	}
	s := &session{
		http: through, make: client, client: first, auth: cfg.Auth, deadline: cfg.Deadline, log: cfg.Logger.Named("vault"),
		changed: make(chan struct{}, 1), asking: make(chan struct{}, 1),
	}
	s.ctx, s.end = context.WithCancel(context.Background()) // outlives New
	if err := s.replace(ctx, 0); err != nil {
		s.end()
		s.work.Wait()
		return nil, err
	}
	s.work.Go(s.keep)
	return s, nil
}

// call makes a call with the token; once more with another when Vault does not know
// the first any more. ErrDenied is the answer of Vault to a token that is good.
func (s *session) call(ctx context.Context, f func(*api.Client) (*api.Secret, error)) (*api.Secret, error) {
	for again := true; ; again = false {
		generation := s.current()
		answer, err := f(s.client)
		if err == nil {
			return answer, nil
		}
		if !forbidden(err) {
			return nil, translate(err)
		}
		good, errAsk := s.good(ctx, generation)
		switch {
		case errAsk != nil:
			return nil, errAsk
		case good:
			return nil, translate(err)
		case !again:
			return nil, fmt.Errorf("%w: Vault refuses the token", kms.ErrUnavailable)
		}
		if err := s.replace(ctx, generation); err != nil {
			return nil, err
		}
	}
}

func (s *session) current() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generation
}

// good asks Vault whether the token of that generation is valid. One caller asks for all.
func (s *session) good(ctx context.Context, generation uint64) (bool, error) {
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	s.mu.Lock()
	stale, fresh := s.generation != generation, time.Since(s.confirmed) < trust
	busy := s.flight != nil
	s.mu.Unlock()
	if stale || busy {
		return false, nil // replace knows
	}
	if fresh {
		return true, nil
	}
	_, err := s.client.Auth().Token().LookupSelfWithContext(ctx)
	if forbidden(err) {
		return false, nil
	}
	if err != nil {
		return false, translate(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation == generation {
		s.confirmed = time.Now()
	}
	return true, nil
}

// replace returns nil when there is a token of another generation. One login serves
// all callers; where the pause after the last has long to run, there is an error at once.
func (s *session) replace(ctx context.Context, generation uint64) error {
	f, err := s.board(generation)
	if f == nil {
		return err
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// board finds the login under way, or begins one. Without either there is an error, or
// nothing to be done.
func (s *session) board(generation uint64) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation != generation {
		return nil, nil
	}
	if s.flight != nil {
		return s.flight, nil
	}
	if !s.obtained.IsZero() && time.Since(s.obtained) > calm {
		s.fruitless, s.next = 0, time.Time{}
	}
	wait := time.Until(s.next)
	if wait > patience {
		return nil, unavailable(fmt.Errorf("the next login comes in %v", wait.Round(time.Second)), s.last)
	}
	s.flight = &flight{done: make(chan struct{})}
	s.next = time.Now().Add(max(wait, 0) + pause(s.fruitless))
	s.fruitless++
	f, first := s.flight, s.generation == 0
	s.work.Go(func() { s.fly(f, wait, first) })
	return f, nil
}

// pause follows a login when n before it were fruitless.
func pause(n int) time.Duration {
	return jittered(min(firstPause<<min(n, 10), maxPause))
}

// jittered is d give or take a quarter, so that replicas do not act as one.
func jittered(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1) //nolint:gosec // no secret
}

// fly logs in when the wait is over.
func (s *session) fly(f *flight, wait time.Duration, first bool) {
	var granted *api.SecretAuth
	err := sleep(s.ctx, wait)
	if err == nil {
		ctx, cancel := context.WithTimeout(s.ctx, s.deadline)
		granted, err = s.auth.login(ctx, s.make)
		cancel()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight, s.last = nil, err
	if err == nil {
		s.take(granted)
		s.log.Info("logged in to Vault", zap.Duration("ttl", s.ttl), zap.Bool("renewable", s.renewable))
	} else {
		s.log.Warn("logging in to Vault failed", zap.Error(err))
	}
	if f.err = err; err != nil && !first {
		f.err = unavailable(err) // that it was refused concerns us, not who asked for a key
	}
	close(f.done)
}

// unavailable makes ErrUnavailable of errors and hides what else they are.
func unavailable(errs ...error) error {
	return fmt.Errorf("%w: %v", kms.ErrUnavailable, errors.Join(errs...)) //nolint:errorlint // hidden on purpose
}

// take makes a token the current one. mu is held.
func (s *session) take(granted *api.SecretAuth) {
	now := time.Now()
	s.client.SetToken(granted.ClientToken)
	s.generation++
	s.obtained, s.confirmed = now, time.Time{}
	s.ttl, s.renewable = time.Duration(granted.LeaseDuration)*time.Second, granted.Renewable
	s.expires = expiry(now, s.ttl)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// expiry is zero for a token that lives for ever.
func expiry(now time.Time, ttl time.Duration) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return now.Add(ttl)
}

// keep renews the token until close. Whatever Vault answers, a second passes between
// two tries.
func (s *session) keep() {
	failed := 0
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.changed:
			failed = 0
			continue
		case <-after(s.untilRenewal(failed)):
		}
		if err := s.renew(); err != nil && s.ctx.Err() == nil {
			failed++
			s.log.Warn("renewing the token failed", zap.Error(err))
		} else {
			failed = 0
		}
	}
}

// after is time.After, and never for a negative time.
func after(d time.Duration) <-chan time.Time {
	if d < 0 {
		return nil
	}
	return time.After(d)
}

// untilRenewal is how long to wait, negative for ever. A third of its time before the
// token ends there is time for several tries.
func (s *session) untilRenewal(failed int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expires.IsZero() {
		return -1
	}
	left := time.Until(s.expires)
	wait := jittered(left * 3 / 5)
	if failed > 0 {
		wait = min(jittered(left/4), pause(failed))
	}
	return max(wait, time.Second)
}

// renew renews the token, or obtains another where it cannot be renewed any further.
func (s *session) renew() error {
	ctx, cancel := context.WithTimeout(s.ctx, s.deadline)
	defer cancel()
	s.mu.Lock()
	generation, renewable, full := s.generation, s.renewable, s.ttl
	s.mu.Unlock()
	if !renewable {
		return s.replace(ctx, generation)
	}
	answer, err := s.client.Auth().Token().RenewSelfWithContext(ctx, 0)
	if forbidden(err) {
		return s.replace(ctx, generation)
	}
	if err != nil {
		return translate(err)
	}
	if answer == nil || answer.Auth == nil {
		return fmt.Errorf("%w: Vault answered the renewal without a token", kms.ErrUnavailable)
	}
	ttl := time.Duration(answer.Auth.LeaseDuration) * time.Second
	s.mu.Lock()
	if s.generation == generation {
		s.expires = expiry(time.Now(), ttl)
		s.renewable = answer.Auth.Renewable
	}
	s.mu.Unlock()
	if ttl < full/2 && s.auth.ours() { // it nears the longest that it may live
		return s.replace(ctx, generation)
	}
	return nil
}

// close ends the renewal, and the token where it is ours.
func (s *session) close() {
	s.end()
	s.work.Wait()
	if s.auth.ours() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := s.client.Auth().Token().RevokeSelfWithContext(ctx, ""); err != nil {
			s.log.Info("giving the token back failed; it ends by itself", zap.Error(translate(err)))
		}
	}
	s.http.CloseIdleConnections()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-after(max(d, 0)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
