package mds

import (
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// maxBody bounds what is to be signed, or verified, in bytes of the request.
const maxBody = 64 << 10

// prefix is between a pod's own path and what it asks for.
const prefix = "/acMetadata/v1"

// ServeHTTP answers a pod. A status other than 200: 400 for a form without what it
// should have, 401 for a token that is not the pod's which has the source address, 403
// for a signature that is not good, and for a request that was passed on by somebody
// else, 404, 405, 413, 429 for too many requests from one address.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !direct(r) {
		refuse(w, http.StatusForbidden, "the request was not sent to here, or passed on")
		return
	}
	token, path := split(r.URL.Path)
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		refuse(w, http.StatusUnauthorized, "unknown source address")
		return
	}
	p, err := s.find(from.Addr().WithZone(""), token)
	if errors.Is(err, errTooMany) {
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, err.Error())
		return
	}
	if err != nil {
		refuse(w, http.StatusUnauthorized, err.Error())
		return
	}
	switch path {
	case "/pod/hmac/sign":
		s.sign(w, r, p)
	case "/pod/hmac/verify":
		s.verify(w, r)
	default:
		p.get(w, r, path)
	}
}

// direct tells whether a request came straight from who made it, to the address that it
// was made for: a proxy, or a page with a name that leads here, can be made to send any
// other (server-side request forgery, DNS rebinding).
func direct(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if _, ok := r.Header[name]; ok {
			return false
		}
	}
	here, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	local, err := netip.ParseAddrPort(here.String())
	if err != nil {
		return false
	}
	host := r.Host
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), "80")
	}
	asked, err := netip.ParseAddrPort(host)
	return err == nil && asked.Port() == local.Port() &&
		asked.Addr().Unmap().WithZone("") == local.Addr().Unmap().WithZone("")
}

// split gives the token of a path "/~TOKEN/acMetadata/v1/…", and the rest.
func split(path string) (token, rest string) {
	path, ok := strings.CutPrefix(path, "/~")
	if !ok {
		return "", ""
	}
	token, rest, _ = strings.Cut(path, prefix)
	return token, rest
}

func refuse(w http.ResponseWriter, status int, why string) {
	send(w, status, answer{contentText, []byte(why + "\n")})
}

func send(w http.ResponseWriter, status int, a answer) {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(a.body) // who does not wait gets nothing
}

// allow answers a request of another method than those.
func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	refuse(w, http.StatusMethodNotAllowed, "only "+strings.Join(methods, " and "))
	return false
}

func (p *pod) get(w http.ResponseWriter, r *http.Request, path string) {
	a, ok := p.answers[path]
	if !ok {
		refuse(w, http.StatusNotFound, "not found")
		return
	}
	if allow(w, r, http.MethodGet, http.MethodHead) {
		send(w, http.StatusOK, a)
	}
}

func (s *Service) sign(w http.ResponseWriter, r *http.Request, p *pod) {
	if form(w, r, "content") {
		sig := s.keys.Sign(p.uuid, []byte(r.PostForm.Get("content")))
		send(w, http.StatusOK, answer{contentText, []byte(base64.StdEncoding.EncodeToString(sig))})
	}
}

func (s *Service) verify(w http.ResponseWriter, r *http.Request) {
	if !form(w, r, "content", "uuid", "signature") {
		return
	}
	id, err := uuid.Parse(r.PostForm.Get("uuid"))
	sig, sigErr := base64.StdEncoding.DecodeString(r.PostForm.Get("signature"))
	if err != nil || sigErr != nil || !s.keys.Verify(id, []byte(r.PostForm.Get("content")), sig) {
		refuse(w, http.StatusForbidden, "the signature is not good")
		return
	}
	send(w, http.StatusOK, answer{contentType: contentText})
}

// form reads the form of a POST, which must have the fields.
func form(w http.ResponseWriter, r *http.Request, fields ...string) bool {
	if !allow(w, r, http.MethodPost) {
		return false
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	err := r.ParseForm()
	if err == nil {
		err = r.ParseMultipartForm(maxBody) //nolint:gosec // the body is bounded
	}
	if err != nil && !errors.Is(err, http.ErrNotMultipart) {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			refuse(w, http.StatusRequestEntityTooLarge, "more than "+strconv.Itoa(maxBody)+" bytes")
		} else {
			refuse(w, http.StatusBadRequest, "not a form")
		}
		return false
	}
	for _, f := range fields {
		if !r.PostForm.Has(f) {
			refuse(w, http.StatusBadRequest, "the form has no field "+f)
			return false
		}
	}
	return true
}
