// The yardstick of another language: the standard library's reverse proxy, with the same duties as a
// gateway (key check, JSON parse, route look-up). Usage: go_proxy PORT UPSTREAM_URL
package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
)

func main() {
	upstream, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	routes := map[string]*url.URL{"echo": upstream}
	transport := &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}
	proxy := &httputil.ReverseProxy{
		Director:      func(*http.Request) {},
		Transport:     transport,
		FlushInterval: -1,
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			http.Error(w, "no key", http.StatusUnauthorized)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "no body", http.StatusBadRequest)
			return
		}
		var asked struct {
			Model string `json:"model"`
		}
		if json.Unmarshal(body, &asked) != nil {
			http.Error(w, "bad body", http.StatusBadRequest)
			return
		}
		target, found := routes[asked.Model]
		if !found {
			http.Error(w, "no model", http.StatusNotFound)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.Header.Del("Authorization")
		r.URL.Scheme, r.URL.Host, r.Host = target.Scheme, target.Host, target.Host
		proxy.ServeHTTP(w, r)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(handler)))
}
