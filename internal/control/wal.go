package control

import (
	"net/http"

	"drover/client"
)

func (s *Server) pushWAL(w http.ResponseWriter, r *http.Request) {
	var request client.WALPushRequest
	err := s.readBody(w, r, &request)
	if err == nil && request.Path == "" {
		err = invalid("path is missing")
	}
	if err == nil {
		err = s.agent.PushWAL(r.Context(), request.Path)
	}
	s.endWait(w, r, err)
}

func (s *Server) fetchWAL(w http.ResponseWriter, r *http.Request) {
	var request client.WALFetchRequest
	err := s.readBody(w, r, &request)
	if err == nil && (request.Name == "" || request.Path == "") {
		err = invalid("name or path is missing")
	}
	if err == nil {
		err = s.agent.FetchWAL(r.Context(), request.Name, request.Path)
	}
	s.endWait(w, r, err)
}

// endWait is end for calls that wait.
func (s *Server) endWait(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		s.refuseCaller(w, r, err)
		return
	}
	s.done(w)
}
