import Metrics

/// What the metrics of this module mean, by name.
public let transportMetricDescriptions: KeyValuePairs = [
  "qwenimage_transport_received_messages_total": "Messages received between gateway and workers.",
  "qwenimage_transport_sent_messages_total": "Messages sent between gateway and workers.",
  "qwenimage_transport_received_bytes_total": "Bytes of the messages received.",
  "qwenimage_transport_sent_bytes_total": "Bytes of the messages sent.",
  "qwenimage_transport_malformed_messages_total": "Messages that could not be decoded.",
  "qwenimage_transport_refused_connections_total": "Connections refused for their key or their protocol.",
]

/// What a socket counts.
struct TransportMetrics {
  let messagesIn: Counter
  let messagesOut: Counter
  let bytesIn: Counter
  let bytesOut: Counter
  let malformed: Counter
  let refused: Counter

  init(socket: String) {
    let dimensions = [("socket", socket)]
    messagesIn = Counter(label: "qwenimage_transport_received_messages_total", dimensions: dimensions)
    messagesOut = Counter(label: "qwenimage_transport_sent_messages_total", dimensions: dimensions)
    bytesIn = Counter(label: "qwenimage_transport_received_bytes_total", dimensions: dimensions)
    bytesOut = Counter(label: "qwenimage_transport_sent_bytes_total", dimensions: dimensions)
    malformed = Counter(label: "qwenimage_transport_malformed_messages_total", dimensions: dimensions)
    refused = Counter(label: "qwenimage_transport_refused_connections_total", dimensions: dimensions)
  }
}
