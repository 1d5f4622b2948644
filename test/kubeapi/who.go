package kubeapi

import "net/http"

// whoAmI tells a client who its certificate says that it is. Nothing is stored.
func whoAmI(w http.ResponseWriter, r *http.Request) {
	user := Object{"username": "system:anonymous", "groups": []string{"system:unauthenticated"}}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		subject := r.TLS.PeerCertificates[0].Subject
		user = Object{"username": subject.CommonName, "groups": append(subject.Organization, "system:authenticated")}
	}
	reply(w, http.StatusCreated, Object{"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": Object{}, "status": Object{"userInfo": user}})
}
