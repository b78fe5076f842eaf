{{/* Parts of resight.check: each refuses in one line that names the value and the fix. */}}

{{- define "resight.checkNames" -}}
{{- range list (list (include "resight.name" .) "nameOverride") (list (include "resight.fullname" .) "fullnameOverride") -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (first .)) -}}
{{- fail (printf "%q is no name that a Service can have (small letters, digits and dashes, a letter first): set %s" (first .) (last .)) -}}
{{- end -}}
{{- end -}}
{{- $own := merge (dict "app.kubernetes.io/component" "") (include "resight.labels" . | fromYaml) -}}
{{- range $label, $_ := .Values.podLabels -}}
{{- if hasKey $own $label -}}
{{- fail (printf "podLabels: %s is the chart's own, by which Services and policies find the pods: take it away" $label) -}}
{{- end -}}
{{- end -}}
{{- if hasKey (default dict .Values.podAnnotations) "checksum/settings" -}}
{{- fail "podAnnotations: checksum/settings is the chart's own: take it away" -}}
{{- end -}}
{{- end -}}

{{/* The root is read-only and a pod's own disk is lost with it: files need a volume. */}}
{{- define "resight.checkPlaces" -}}
{{- $volumes := list "/bundle" -}}
{{- if or (not .Values.database.existingSecret) .Values.data.existingClaim -}}{{- $volumes = append $volumes "/data" -}}{{- end -}}
{{- if .Values.erasures.existingClaim -}}{{- $volumes = append $volumes "/erasures" -}}{{- end -}}
{{- if .Values.images.existingClaim -}}{{- $volumes = append $volumes "/images" -}}{{- end -}}
{{- if .Values.tls.existingSecret -}}{{- $volumes = append $volumes "/secrets/tls" -}}{{- end -}}
{{- $held := printf "^(%s)/" (join "|" $volumes) -}}
{{- with .Values.images.url -}}
{{- if or (hasPrefix "file:" .) (not (contains "://" .)) -}}
{{- fail (printf "images.url: %s is no object store (s3://bucket/prefix): for images on a volume set images.existingClaim" .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.audit.anchorUrl -}}
{{- $path := trimPrefix "file://" . -}}
{{- if not (or (contains "://" $path) (and (regexMatch $held $path) (regexMatch "^/(data|erasures|images)/" $path))) -}}
{{- fail (printf "audit.anchorUrl: no volume that is kept and written to holds %s: name a bucket (s3://…), or a folder below /erasures with erasures.existingClaim" $path) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := .Values.settings -}}
{{- if and (hasSuffix "_FILE" $name) (not (regexMatch $held $value)) -}}
{{- fail (printf "settings.%s: no volume of the pods holds %s (they have %s)" $name $value (join ", " $volumes)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* They lie open in a ConfigMap. */}}
{{- define "resight.checkSettings" -}}
{{- range $name := list "RESIGHT_API_KEY" -}}
{{- if hasKey $.Values.settings $name -}}
{{- fail (printf "settings.%s is a secret, and settings lie open in a ConfigMap: take it away" $name) -}}
{{- end -}}
{{- end -}}
{{- $urls := dict "images.url" .Values.images.url "images.endpointUrl" .Values.images.endpointUrl "audit.anchorUrl" .Values.audit.anchorUrl "tracing.endpoint" .Values.tracing.endpoint -}}
{{- range $name, $value := .Values.settings -}}{{- $_ := set $urls (printf "settings.%s" $name) $value -}}{{- end -}}
{{- range $name, $value := $urls -}}
{{- if regexMatch "://[^/@]*:[^/@]+@" $value -}}
{{- fail (printf "%s holds a password, and lies open in a ConfigMap: give it by a secret or a role instead" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := .Values.settings -}}
{{- if or (hasPrefix "RESIGHT_MILVUS__" $name) (and (eq $name "RESIGHT_INDEX__BACKEND") (eq $value "milvus")) -}}
{{- fail (printf "settings.%s: the chart's images hold no client of Milvus, and its pods no token: run such a service by itself (docs/scale.md), or take it away" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "resight.checkDevices" -}}
{{- if and .Values.gpu.enabled (regexMatch "(^|/)service-cpu$" .Values.image.repository) -}}
{{- fail (printf "gpu.enabled: nothing in the image %s uses a GPU: set image.repository: resight/service-gpu" .Values.image.repository) -}}
{{- end -}}
{{- range $name, $value := dict "RESIGHT_INDEX__BACKEND" "gpu" "RESIGHT_ENCODER__PROVIDER" "cuda" -}}
{{- if and (eq (default "" (index $.Values.settings $name)) $value) (not $.Values.gpu.enabled) -}}
{{- fail (printf "settings.%s: %s needs a GPU: set gpu.enabled: true" $name $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
