package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestGetPrintsWhatAnotherPodAnswers(t *testing.T) {
	server := httptest.NewServer(handler("pod-1"))
	defer server.Close()
	var out strings.Builder
	if err := run(t.Context(), &out, []string{"get", server.URL}); err != nil || out.String() != "pod-1\n" {
		t.Fatalf("get = %q, %v", out.String(), err)
	}
}

func TestGetFailsOnAnErrorStatus(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	var out strings.Builder
	if err := run(t.Context(), &out, []string{"get", server.URL}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Fatalf("error = %v", err)
	}
}

func TestLookupPrintsAddresses(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out, []string{"lookup", "127.0.0.1"}); err != nil || out.String() != "127.0.0.1\n" {
		t.Fatalf("lookup = %q, %v", out.String(), err)
	}
}

func TestWrongArgumentsAreRefused(t *testing.T) {
	if err := run(t.Context(), nil, []string{"get"}); err == nil || !strings.Contains(err.Error(), "usage") {
		t.Fatalf("error = %v", err)
	}
}
