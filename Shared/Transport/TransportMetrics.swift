import Metrics

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
