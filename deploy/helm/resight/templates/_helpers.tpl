{{- define "resight.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "resight.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "resight.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "resight.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "resight.selector" -}}
app.kubernetes.io/name: {{ include "resight.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "resight.labels" -}}
{{ include "resight.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: resight
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "resight.image" -}}
{{- $image := index . 0 -}}{{- $chart := index . 1 -}}
{{- if $image.digest -}}{{ $image.repository }}@{{ $image.digest }}
{{- else -}}{{ $image.repository }}:{{ default $chart.AppVersion $image.tag }}{{- end -}}
{{- end -}}

{{- define "resight.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
fsGroup: {{ .Values.runAsUser }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "resight.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "resight.gpuResources" -}}
{{- $resources := deepCopy (default dict .resources) -}}
{{- if .gpu.enabled -}}
{{- $_ := set $resources "limits" (merge (dict .gpu.resource .gpu.count) (default dict $resources.limits)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "resight.pools" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The port that a URL leads to. */}}
{{- define "resight.port" -}}
{{- $url := urlParse . -}}
{{- $named := regexFind ":[0-9]+$" $url.host -}}
{{- if $named -}}{{ trimPrefix ":" $named }}
{{- else -}}{{ ternary "443" "80" (eq $url.scheme "https") }}{{- end -}}
{{- end -}}

{{/* What cannot work is refused here, in one line that says what to set. */}}
{{- define "resight.check" -}}
{{- $many := or (gt (int .Values.replicas) 1) .Values.autoscaling.enabled -}}
{{- if not .Values.bundle.existingClaim -}}
{{- fail "bundle.existingClaim is not set: name the claim that holds the encoder bundle" -}}
{{- end -}}
{{- if and $many (not .Values.database.existingSecret) -}}
{{- fail "more than one replica needs PostgreSQL, and SQLite belongs to one process: set database.existingSecret, or replicas: 1 and autoscaling.enabled: false" -}}
{{- end -}}
{{- if and $many (not (or .Values.images.url .Values.images.existingClaim)) -}}
{{- fail "more than one replica needs a place for images and the archives of models (in privacy mode for these alone) where all can read and write: set images.url (s3://…) or images.existingClaim" -}}
{{- end -}}
{{- if and $many (not .Values.erasures.existingClaim) -}}
{{- fail "more than one replica needs one erasure ledger: set erasures.existingClaim to a claim that all can write to (ReadWriteMany)" -}}
{{- end -}}
{{- if and .Values.images.url .Values.images.existingClaim -}}
{{- fail "images.url and images.existingClaim are both set; keep one" -}}
{{- end -}}
{{- if and .Values.database.existingSecret (not (or .Values.images.url .Values.images.existingClaim .Values.data.existingClaim)) -}}
{{- fail "with a database the data volume is scratch, and images and the archives of models on it would be lost: set images.url, images.existingClaim or data.existingClaim" -}}
{{- end -}}
{{- if and .Values.database.existingSecret (not (or .Values.erasures.existingClaim .Values.data.existingClaim)) -}}
{{- fail "with a database the data volume is scratch, and the erasure ledger on it would be lost: set erasures.existingClaim or data.existingClaim" -}}
{{- end -}}
{{- if and .Values.database.existingSecret (not (or .Values.audit.existingSecret .Values.data.existingClaim)) -}}
{{- fail "with a database the data volume is scratch, and the key that signs checkpoints and receipts would be another one after each start: set audit.existingSecret" -}}
{{- end -}}
{{- if and $many .Values.data.existingClaim -}}
{{- fail "data.existingClaim belongs to one process: take it away, or set replicas: 1" -}}
{{- end -}}
{{- if and (not .Values.tls.existingSecret) (not .Values.allowInsecureNetwork) -}}
{{- fail "the service refuses to listen without TLS: set tls.existingSecret, or allowInsecureNetwork: true where a mesh encrypts" -}}
{{- end -}}
{{- if and (eq .Values.access.authentication "off") (not .Values.allowInsecureNetwork) -}}
{{- fail "access.authentication: \"off\" needs allowInsecureNetwork: true, where a proxy asks for credentials" -}}
{{- end -}}
{{- if and .Values.tls.clientCa (not .Values.tls.existingSecret) -}}
{{- fail "tls.clientCa needs tls.existingSecret" -}}
{{- end -}}
{{- if and .Values.nightly.enabled (ne .Values.access.authentication "off") (not .Values.nightly.apiKey.existingSecret) -}}
{{- fail "nightly needs a key of its own: set nightly.apiKey.existingSecret (`resight keys create`)" -}}
{{- end -}}
{{- if and .Values.nightly.enabled .Values.tls.clientCa (not .Values.nightly.clientCertificate.existingSecret) -}}
{{- fail "with tls.clientCa the night must show a certificate, too: set nightly.clientCertificate.existingSecret" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- fail "autoscaling.maxReplicas is below autoscaling.minReplicas" -}}
{{- end -}}
{{- if lt (len (uniq (list (int .Values.ports.grpc) (int .Values.ports.rest) (int .Values.ports.probes)))) 3 -}}
{{- fail "ports.grpc, ports.rest and ports.probes must be three different ports" -}}
{{- end -}}
{{- range $name, $_ := .Values.settings -}}
{{- $set := dict "RESIGHT_BUNDLE" "bundle.path" "RESIGHT_DATA_DIR" "the data volume" "RESIGHT_DATABASE_URL" "database.existingSecret" "RESIGHT_BLOB_URL" "images" "RESIGHT_ERASURES_DIR" "erasures.existingClaim" "RESIGHT_GRPC__HOST" "ports" "RESIGHT_GRPC__PORT" "ports.grpc" "RESIGHT_REST__HOST" "ports" "RESIGHT_REST__PORT" "ports.rest" "RESIGHT_PROBES__HOST" "ports" "RESIGHT_PROBES__PORT" "ports.probes" "RESIGHT_DRAIN_DELAY_SECONDS" "drain.delaySeconds" "RESIGHT_DRAIN_SECONDS" "drain.seconds" "RESIGHT_ALLOW_INSECURE_NETWORK" "allowInsecureNetwork" "RESIGHT_ACCESS__AUTHENTICATION" "access.authentication" "RESIGHT_ACCESS__BOOTSTRAP_KEY" "access.existingSecret" "RESIGHT_TLS__CERTIFICATE" "tls.existingSecret" "RESIGHT_TLS__KEY" "tls.existingSecret" "RESIGHT_TLS__CLIENT_CA" "tls.clientCa" "RESIGHT_AUDIT__SIGNING_KEY" "audit.existingSecret" "RESIGHT_AUDIT__ANCHOR_URL" "audit.anchorUrl" "RESIGHT_TRACING__ENDPOINT" "tracing.endpoint" -}}
{{- if $.Values.nightly.enabled -}}{{- $_ := set $set "RESIGHT_NIGHTLY__EXPECTED" "nightly.gallery" -}}{{- end -}}
{{- with get $set (trimSuffix "_FILE" $name) -}}
{{- fail (printf "settings.%s is the chart's own: set %s instead" $name .) -}}
{{- end -}}
{{- end -}}
{{- include "resight.checkNames" . -}}
{{- include "resight.checkPlaces" . -}}
{{- include "resight.checkSettings" . -}}
{{- include "resight.checkDevices" . -}}
{{- $policy := .Values.networkPolicy -}}
{{- if and $policy.enabled .Values.tracing.endpoint (ne (include "resight.port" .Values.tracing.endpoint) (toString (int $policy.tracing.port))) -}}
{{- fail (printf "no trace would arrive: tracing.endpoint is at port %s, and networkPolicy.tracing.port lets the service go to %d" (include "resight.port" .Values.tracing.endpoint) (int $policy.tracing.port)) -}}
{{- end -}}
{{- if and $policy.enabled .Values.images.endpointUrl (ne (include "resight.port" .Values.images.endpointUrl) (toString (int $policy.objectStore.port))) -}}
{{- fail (printf "no image could be stored: images.endpointUrl is at port %s, and networkPolicy.objectStore.port lets the service go to %d" (include "resight.port" .Values.images.endpointUrl) (int $policy.objectStore.port)) -}}
{{- end -}}
{{- if and $policy.enabled (hasKey .Values.settings "RESIGHT_ACCESS__JWKS_URL") (not $policy.identity.enabled) -}}
{{- fail "no token could be checked: with RESIGHT_ACCESS__JWKS_URL set networkPolicy.identity.enabled" -}}
{{- end -}}
{{- with .Values.settings.RESIGHT_ACCESS__JWKS_URL -}}
{{- if and $policy.enabled (ne (include "resight.port" .) (toString (int $policy.identity.port))) -}}
{{- fail (printf "no token could be checked: RESIGHT_ACCESS__JWKS_URL is at port %s, and networkPolicy.identity.port lets the service go to %d" (include "resight.port" .) (int $policy.identity.port)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
