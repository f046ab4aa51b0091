package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"
)

// settings are what the fake does not keep of a bucket. A field that a change does not
// name stays as it is, which the fake sees otherwise.
type settings struct {
	labels         map[string]string
	versioning     bool
	metageneration int64
	updated        time.Time
}

// bucket describes a bucket as the fake does, with what it does not keep.
func (f *front) bucket(w http.ResponseWriter, r *http.Request, name string) {
	answer := httptest.NewRecorder()
	f.next.ServeHTTP(answer, r)
	f.settingsLock.Lock()
	kept, ok := f.settings[name]
	f.settingsLock.Unlock()
	var described map[string]any
	if !ok || answer.Code != http.StatusOK || json.Unmarshal(answer.Body.Bytes(), &described) != nil {
		replay(w, answer)
		return
	}
	described["labels"], described["versioning"] = kept.labels, map[string]bool{"enabled": kept.versioning}
	described["metageneration"] = strconv.FormatInt(kept.metageneration, 10)
	described["updated"] = kept.updated.Format(time.RFC3339Nano)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(described)
}

// describe asks for a bucket as a client would.
func (f *front) describe(w http.ResponseWriter, r *http.Request, name string) {
	get := httptest.NewRequest(http.MethodGet, r.URL.Path, nil)
	get.Host = r.Host
	f.bucket(w, get, name)
}

// configure changes labels and versioning. A label that is null goes.
func (f *front) configure(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	now := httptest.NewRecorder()
	f.describe(now, r, name)
	var was struct {
		Labels         map[string]string `json:"labels"`
		Versioning     struct{ Enabled bool }
		Metageneration int64 `json:"metageneration,string"`
	}
	var asked struct {
		Labels     map[string]*string
		Versioning *struct{ Enabled bool }
	}
	if now.Code != http.StatusOK {
		replay(w, now)
		return
	}
	if json.Unmarshal(now.Body.Bytes(), &was) != nil || json.Unmarshal(body, &asked) != nil {
		fail(w, http.StatusBadRequest, "invalid", "Malformed bucket.")
		return
	}
	if match := r.URL.Query().Get("ifMetagenerationMatch"); match != "" && match != strconv.FormatInt(was.Metageneration, 10) {
		fail(w, http.StatusPreconditionFailed, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
		return
	}
	next := settings{labels: maps.Clone(was.Labels), versioning: was.Versioning.Enabled, metageneration: was.Metageneration + 1, updated: time.Now()}
	if next.labels == nil {
		next.labels = map[string]string{}
	}
	for label, value := range asked.Labels {
		if delete(next.labels, label); value != nil {
			next.labels[label] = *value
		}
	}
	if asked.Versioning != nil {
		next.versioning = asked.Versioning.Enabled
	}
	f.keep(name, next)
	toFake, _ := json.Marshal(map[string]any{"versioning": map[string]bool{"enabled": next.versioning}})
	r.Body = io.NopCloser(bytes.NewReader(toFake))
	f.next.ServeHTTP(httptest.NewRecorder(), r)
	f.describe(w, r, name)
}

func (f *front) keep(name string, s settings) {
	f.settingsLock.Lock()
	defer f.settingsLock.Unlock()
	f.settings[name] = s
}

func (f *front) forget(name string) {
	f.settingsLock.Lock()
	defer f.settingsLock.Unlock()
	delete(f.settings, name)
}

// patch changes the metadata of an object, or of one of its generations: names that are
// not given stay.
func (f *front) patch(w http.ResponseWriter, r *http.Request, o object, body []byte) {
	generation, _ := strconv.ParseInt(r.URL.Query().Get("generation"), 10, 64)
	found, err := f.fake.GetObjectWithGeneration(o.bucket, o.name, generation)
	if err != nil {
		notFound(w, o)
		return
	}
	var asked struct{ Metadata map[string]*string }
	if err := json.Unmarshal(body, &asked); err != nil {
		fail(w, http.StatusBadRequest, "invalid", err.Error())
		return
	}
	metadata := maps.Clone(found.Metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	for name, value := range asked.Metadata {
		if delete(metadata, name); value != nil {
			metadata[name] = *value
		}
	}
	// The fake takes an object of a generation that is there for a change of that one.
	found.Metadata, found.Updated = metadata, time.Now()
	if err := f.fake.CreateObjectStreaming(found.StreamingObject()); err != nil {
		fail(w, http.StatusInternalServerError, "internalError", err.Error())
		return
	}
	get := httptest.NewRequest(http.MethodGet, r.URL.EscapedPath()+"?generation="+strconv.FormatInt(found.Generation, 10), nil)
	get.Host = r.Host
	f.next.ServeHTTP(w, get)
}
