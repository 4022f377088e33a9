// A client in a page of Go, on the standard library alone. Go 1.19 or newer.
//
//	service := Service{URL: "http://127.0.0.1:8080", Token: token}
//	job, err := service.Start(ctx, Spec{Command: []string{"make"}})
//	err = service.Follow(ctx, job.ID, os.Stdout)
//	job, err = service.Ended(ctx, job.ID)
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Spec has the fields of a job that this program uses; docs/reference/job.md has all of them.
type Spec struct {
	Command        []string          `json:"command,omitempty"`
	Script         string            `json:"script,omitempty"`
	Cwd            string            `json:"cwd,omitempty"`
	Env            map[string]string `json:"env,omitempty"`
	TimeoutSeconds float64           `json:"timeout_seconds,omitempty"`
	Nice           *int              `json:"nice,omitempty"`
}

// Job is a job as the service shows it.
type Job struct {
	ID         string     `json:"id"`
	State      string     `json:"state"`
	FinishedAt *time.Time `json:"finished_at"`
	Exit       *struct {
		Code   *int    `json:"code"`
		Signal *string `json:"signal"`
	} `json:"exit"`
}

// Problem is why the service refused a request (RFC 9457).
type Problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

func (problem *Problem) Error() string {
	return fmt.Sprintf("%s: %s", problem.Code, problem.Detail)
}

// Service is where the service is, and a token for it.
type Service struct {
	URL, Token string
}

func (service Service) ask(ctx context.Context, method, path string, header http.Header, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, service.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	request.Header.Set("Authorization", "Bearer "+service.Token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil || answer.StatusCode < 400 {
		return answer, err
	}
	defer answer.Body.Close()
	problem := &Problem{Status: answer.StatusCode}
	if err := json.NewDecoder(answer.Body).Decode(problem); err != nil {
		problem.Detail = answer.Status
	}
	return nil, problem
}

func (service Service) job(ctx context.Context, method, path string, header http.Header, body []byte) (job Job, err error) {
	answer, err := service.ask(ctx, method, path, header, body)
	if err != nil {
		return job, err
	}
	defer answer.Body.Close()
	return job, json.NewDecoder(answer.Body).Decode(&job)
}

// Start starts a job. Its key makes a repeat after a broken connection the same job.
func (service Service) Start(ctx context.Context, spec Spec) (job Job, err error) {
	body, err := json.Marshal(spec)
	if err != nil {
		return job, err
	}
	key := make([]byte, 16)
	if _, err := rand.Read(key); err != nil {
		return job, err
	}
	header := http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {hex.EncodeToString(key)}}
	for {
		job, err = service.job(ctx, http.MethodPost, "/jobs", header, body)
		if !isBroken(ctx, err) {
			return job, err
		}
	}
}

// Ended waits for the end of a job.
func (service Service) Ended(ctx context.Context, id string) (Job, error) {
	for {
		job, err := service.job(ctx, http.MethodGet, "/jobs/"+id+"?wait=25", nil, nil)
		if !isBroken(ctx, err) && (err != nil || job.FinishedAt != nil) {
			return job, err
		}
	}
}

// Stop returns when no process of the job is left, or after five minutes.
func (service Service) Stop(ctx context.Context, id string) (Job, error) {
	return service.job(ctx, http.MethodDelete, "/jobs/"+id+"?wait=300", nil, nil)
}

// Follow copies all output as it is written, over breaks of the connection.
func (service Service) Follow(ctx context.Context, id string, to io.Writer) error {
	var offset int64
	for {
		path := fmt.Sprintf("/jobs/%s/output?follow&offset=%d", id, offset)
		answer, err := service.ask(ctx, http.MethodGet, path, nil, nil)
		if err == nil {
			var count int64
			count, err = io.Copy(to, answer.Body)
			answer.Body.Close()
			offset += count
		}
		if !isBroken(ctx, err) {
			return err
		}
	}
}

// isBroken says whether a connection failed, and pauses before it is tried again.
func isBroken(ctx context.Context, err error) bool {
	var problem *Problem
	if err == nil || errors.As(err, &problem) && problem.Status != http.StatusServiceUnavailable {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(500 * time.Millisecond):
		return true
	}
}
