import GatewayDispatch
import HTTPClient
import Settings

extension GatewayConfiguration {
  mutating func readWebhooks(_ reader: inout SettingReader) async {
    server.webhooks.isEnabled = await reader.flag(
      "webhooks.enabled", server.webhooks.isEnabled, "notify the webhooks that requests and tenants name")
    server.webhooks.allowsHTTP = await reader.flag(
      "webhooks.allowHttp", server.webhooks.allowsHTTP, "notify webhooks without TLS as well")
    let allowed = await reader.list(
      "webhooks.allowedHosts", [],
      "hosts, addresses and networks such as 10.1.0.0/16 that webhooks may have although they are not public, "
        + "separated by commas. Without it, nothing is sent to private networks, links and this machine")
    for text in allowed {
      if let network = IPNetwork(text) {
        server.webhooks.addresses.networks.append(network)
      } else if HostPolicy.isHost(text) {
        server.webhooks.addresses.hosts.insert(text.lowercased())
      } else {
        reader.complain(
          "webhooks.allowedHosts has \"\(text)\", but must be host names, IP addresses, or networks as ADDRESS/BITS")
      }
    }
    webhooks.timeout = await reader.seconds(
      "webhooks.timeoutSeconds", webhooks.timeout, in: 0.1...300, "a notification that takes longer has failed")
    webhooks.retryLimit = await reader.seconds(
      "webhooks.retrySeconds", webhooks.retryLimit, in: 0...30 * 86_400,
      "how long failed notifications are repeated, after 5 s, 10 s, and so on, up to an hour")
    webhooks.maxConcurrent = await reader.integer(
      "webhooks.maxConcurrent", webhooks.maxConcurrent, in: 1...1000, "notifications at a time")
    webhooks.maxPerHost = await reader.integer(
      "webhooks.maxPerHost", webhooks.maxPerHost, in: 1...1000, "of them, those to one host")
  }
}
