{{/*
What the agents may do, which is what their configuration has them do and nothing more: a role for each place in which something
is read. Without `kubernetes` and without a probe of the API server there is none.
*/}}

{{/* A role and its binding: (dict "root" . "kind" "Role" "name" SUFFIX "namespace" NAMESPACE "rules" LIST) */}}
{{- define "viplane.role" -}}
{{- $name := printf "%s%s" (include "viplane.fullname" .root) .name }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ $name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "viplane.labels" .root | nindent 4 }}
rules:
  {{- toYaml .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ $name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "viplane.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ include "viplane.serviceAccountName" .root }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{- define "viplane.grants" -}}
{{- $watch := list "list" "watch" -}}
{{- $services := list (dict "apiGroups" (list "") "resources" (list "services") "verbs" $watch) (dict "apiGroups" (list "discovery.k8s.io") "resources" (list "endpointslices") "verbs" $watch) -}}
{{- $rules := list -}}
{{- if include "viplane.asksKubeApi" . -}}
{{- $rules = append $rules (dict "nonResourceURLs" (list "/healthz") "verbs" (list "get")) -}}
{{- end -}}
{{- with .Values.kubernetes -}}
{{- $rules = append $rules (dict "apiGroups" (list "") "resources" (list "nodes") "verbs" $watch) -}}
{{- if has "service" (.sources | default (list "service")) -}}
{{- /* The addresses, by the node that has them. */ -}}
{{- $services = append $services (dict "apiGroups" (list "") "resources" (list "services/status") "verbs" (list "patch")) -}}
{{- end -}}
{{- if has "pool" (.sources | default (list "pool")) -}}
{{- /* Whoever allocates asks for the object itself before its address is taken back. */ -}}
{{- $holders := list (dict "apiGroups" (list "") "resources" (list "services") "verbs" (list "get")) (dict "apiGroups" (list "viplane.dev") "resources" (list "virtualips") "verbs" (list "get" "list" "watch" "patch")) (dict "apiGroups" (list "viplane.dev") "resources" (list "virtualips/status") "verbs" (list "patch")) -}}
{{- $rules = append $rules (dict "apiGroups" (list "events.k8s.io") "resources" (list "events") "verbs" (list "create" "patch")) -}}
{{- $services = concat $services $holders -}}
{{- $rules = append $rules (dict "apiGroups" (list "viplane.dev") "resources" (list "vippools") "verbs" (list "list" "watch" "patch")) -}}
{{- $rules = append $rules (dict "apiGroups" (list "viplane.dev") "resources" (list "vippools/status") "verbs" (list "patch")) -}}
{{- end -}}
{{- if not .watch_namespace }}{{ $rules = concat $rules $services }}{{ end -}}
{{- end -}}
{{- if $rules -}}
{{- include "viplane.role" (dict "root" . "kind" "ClusterRole" "name" (printf "-%s" .Release.Namespace) "rules" $rules) -}}
{{- end -}}
{{- with .Values.kubernetes -}}
{{- with .watch_namespace }}
{{ include "viplane.role" (dict "root" $ "kind" "Role" "name" "-services" "namespace" . "rules" $services) -}}
{{- end -}}
{{- if has "configmap" (.sources | default (list "configmap")) -}}
{{- $object := .configmap | default "kube-system/vip-configmap" | splitList "/" -}}
{{- $rules = list (dict "apiGroups" (list "") "resources" (list "configmaps") "resourceNames" (list (last $object)) "verbs" $watch) }}
{{ include "viplane.role" (dict "root" $ "kind" "Role" "name" "-configmap" "namespace" (first $object) "rules" $rules) -}}
{{- end -}}
{{- if has "pool" (.sources | default (list "pool")) -}}
{{- /* Which agent allocates. What does not exist yet cannot be created by name. */ -}}
{{- $lease := dict "apiGroups" (list "coordination.k8s.io") "resources" (list "leases") "resourceNames" (list "viplane-allocator") "verbs" (list "get" "update") -}}
{{- $create := dict "apiGroups" (list "coordination.k8s.io") "resources" (list "leases") "verbs" (list "create") }}
{{ include "viplane.role" (dict "root" $ "kind" "Role" "name" "-allocator" "namespace" $.Release.Namespace "rules" (list $lease $create)) -}}
{{- end -}}
{{- /* The other agents: peers of the election. */}}
{{- $rules = list (dict "apiGroups" (list "") "resources" (list "pods") "verbs" (list "get" "list" "watch")) }}
{{ include "viplane.role" (dict "root" $ "kind" "Role" "name" "-peers" "namespace" $.Release.Namespace "rules" $rules) -}}
{{- end -}}
{{- end -}}
