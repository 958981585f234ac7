// Sends events and verifies the page that an alert sends.
//
//	CLOUD_API_KEY=pk_live_… go run .
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

var api = "http://127.0.0.1:8080/v1"
var client = &http.Client{Timeout: 30 * time.Second}

func random() string {
	bytes := make([]byte, 8)
	must(rand.Read(bytes))
	return fmt.Sprintf("%x", bytes)
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// call calls the API. 429, 500 and 503 are tried again; one key for all tries makes that safe.
func call(method, path string, body, answer any) {
	data, key := must(json.Marshal(body)), random()
	for attempt := 0; ; attempt++ {
		var sent io.Reader
		if body != nil {
			sent = bytes.NewReader(data)
		}
		request := must(http.NewRequest(method, api+path, sent))
		request.Header.Set("Authorization", "Bearer "+os.Getenv("CLOUD_API_KEY"))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Idempotency-Key", key)
		response := must(client.Do(request))
		got := must(io.ReadAll(response.Body))
		response.Body.Close()
		switch status := response.StatusCode; {
		case status < 300:
			if err := json.Unmarshal(got, answer); err != nil {
				log.Fatal(err)
			}
			return
		case (status != 429 && status != 500 && status != 503) || attempt == 4:
			log.Fatalf("%s %s: %d %s", method, path, status, got)
		}
		wait, err := strconv.Atoi(response.Header.Get("Retry-After"))
		if err != nil {
			wait = 1 << attempt
		}
		time.Sleep(time.Duration(wait) * time.Second)
	}
}

type object = map[string]any

type delivery struct {
	headers http.Header
	body    []byte
}

func main() {
	if set := os.Getenv("CLOUD_API_URL"); set != "" {
		api = set
	}
	received := make(chan delivery, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The bytes as they came: a body that is written anew has another signature.
		received <- delivery{r.Header, must(io.ReadAll(r.Body))}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()

	account, answer := "acc_"+random(), object{}
	call("PUT", "/accounts/"+account+"/quotas/api.requests", object{"limit": 100, "period": "month"}, &answer)
	var channel struct{ ID, Secret string }
	call("POST", "/channels", object{"type": "webhook", "name": "example", "url": receiver.URL}, &channel)
	call("POST", "/alerts", object{"account_id": account, "rule": "quota_percent > 85", "channel": channel.ID}, &answer)

	// Each event has an id, so that one which is sent twice counts once.
	events := []object{}
	for n := range 9 {
		id := fmt.Sprintf("%s-%d", account, n)
		events = append(events, object{"id": id, "account_id": account, "metric": "api.requests", "value": 10})
	}
	var accepted struct{ Receipt string }
	for range 2 {
		call("POST", "/events/batch", object{"events": events}, &accepted)
	}
	var usage struct{ Quotas []struct{ Used float64 } }
	call("GET", "/accounts/"+account+"/usage?window=5m&after="+accepted.Receipt, nil, &usage)
	if len(usage.Quotas) != 1 || usage.Quotas[0].Used != 90 {
		log.Fatalf("used is not 90: %v", usage)
	}

	select {
	case <-time.After(30 * time.Second):
		log.Fatal("no page came")
	case got := <-received:
		webhook := must(webhooks.NewWebhook(channel.Secret))
		if err := webhook.Verify(got.body, got.headers); err != nil {
			log.Fatal(err)
		}
		if webhook.Verify(append(got.body, ' '), got.headers) == nil {
			log.Fatal("a forged body was taken")
		}
		var page struct {
			Type string
			Data struct {
				Account string `json:"account_id"`
			}
		}
		if err := json.Unmarshal(got.body, &page); err != nil || page.Type != "alert.firing" || page.Data.Account != account {
			log.Fatalf("not the page of this alert: %s", got.body)
		}
		fmt.Printf("go: %s of %s is genuine, and a forged one is not\n", page.Type, account)
	}
}
