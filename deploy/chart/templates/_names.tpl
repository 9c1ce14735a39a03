{{/* Names, labels and small readers of values. */}}

{{- define "viplane.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "viplane.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "viplane.selectorLabels" -}}
app.kubernetes.io/name: {{ include "viplane.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "viplane.labels" -}}
{{ include "viplane.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "viplane.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default .Values.serviceAccountName | default (include "viplane.fullname" .) -}}
{{- end -}}

{{/* A scalar as text. YAML's numbers are floats here, which print as 1e+06. */}}
{{- define "viplane.text" -}}
{{- if kindIs "invalid" . -}}
{{- else if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* A Kubernetes quantity as a plain number in its base unit: bytes, CPUs. */}}
{{- define "viplane.quantity" -}}
{{- $text := include "viplane.text" . -}}
{{- $factors := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- if not (hasKey $factors $unit) }}{{ fail (printf "%q is no quantity: use Mi or Gi for memory, m for CPUs" $text) }}{{ end -}}
{{- mulf (trimSuffix $unit $text | float64) (get $factors $unit) -}}
{{- end -}}
