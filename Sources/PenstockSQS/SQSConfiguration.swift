// SPDX-License-Identifier: Apache-2.0

/// Who the service says it is.
public struct SQSConfiguration: Sendable {
  /// Whose limits hold.
  public enum Limits: String, Sendable, Hashable {
    /// Those of Amazon's service.
    case amazon
    /// Those that it had before August 2025: messages and batches of 256 KiB.
    case legacy
    /// Those of the store, where they are wider.
    case extended
  }

  /// How queue URLs look. All of them are understood.
  public enum QueueURLs: String, Sendable, Hashable {
    /// `BASE/ACCOUNT/NAME`.
    case standard
    /// `BASE/queue/REGION/ACCOUNT/NAME`.
    case path
    /// `BASE/ACCOUNT/NAME` with `REGION.queue.` before the host.
    case domain
  }

  /// Twelve digits. The server's own account: of whoever comes while there are no credentials, and
  /// of the queues that a program sees by their plain names.
  public var accountID = "000000000000"
  /// Appears in the ARNs of queues.
  public var region = "us-east-1"
  /// Most messages in flight of a queue that is made over the API; 0 for no limit. A queue keeps
  /// the one it was made with.
  public var maximumInFlight = 120_000
  /// Whether a queue can be purged once a minute only, and its name is taken for a minute after it
  /// was deleted, as on Amazon.
  public var hasCooldowns = false
  /// Host and port for queue URLs when a request brings no usable Host header.
  public var fallbackAuthority = "localhost"
  /// What queue URLs begin with, without a slash at the end; nil for what the client called the
  /// server. See `isPublicURL`.
  public var publicURL: String?
  /// Whether `X-Forwarded-Host` counts. Only where a proxy sets it, or drops what clients set.
  public var trustsForwarded = false
  /// Whose limits hold.
  public var limits = Limits.amazon
  /// How the URLs look that are handed out.
  public var queueURLs = QueueURLs.standard
  /// Whether the host takes no more requests; health says so.
  public var isDraining: @Sendable () -> Bool = { false }

  /// The defaults.
  public init() {}

  /// Where this client reaches the server: as configured, or by its own words.
  func baseURL(_ headers: any SQSHeaders, isSecure: Bool) -> String {
    if let publicURL { return publicURL }
    let scheme = isSecure ? "https://" : "http://"
    let forwarded = trustsForwarded ? headers.first("x-forwarded-host") : nil
    guard let host = forwarded ?? headers.first("host"), SQSService.isAuthority(host) else {
      return scheme + fallbackAuthority
    }
    return scheme + host
  }

  /// A queue URL without the path that `publicURL` has before account and name.
  func withoutPublicPath(_ url: String) -> String {
    guard let publicURL, url.hasPrefix(publicURL + "/"),
      let authority = publicURL.firstIndex(of: ":").map({
        publicURL.index($0, offsetBy: 3, limitedBy: publicURL.endIndex) ?? publicURL.endIndex
      }), let path = publicURL[authority...].firstIndex(of: "/")
    else { return url }
    return String(publicURL[..<path] + url.dropFirst(publicURL.count))
  }

  /// Where a client that reaches the server at `base` reaches a queue of the store.
  func url(ofQueue storeName: String, at base: String) -> String {
    let (account, name) = owner(of: storeName)
    switch queueURLs {
    case .standard: return "\(base)/\(account)/\(name)"
    case .path: return "\(base)/queue/\(region)/\(account)/\(name)"
    case .domain:
      let domain = "://\(region).queue."
      let parts = base.split(separator: "://", maxSplits: 1)
      // A client that came by such a name keeps it.
      guard parts.count == 2, !base.contains(domain) else { return "\(base)/\(account)/\(name)" }
      return "\(parts[0])\(domain)\(parts[1])/\(account)/\(name)"
    }
  }

  /// The path of a request without that of `publicURL`.
  func withoutPublicPath(path: Substring) -> String {
    guard let publicURL, let authority = publicURL.firstRange(of: "://")?.upperBound,
      let slash = publicURL[authority...].firstIndex(of: "/")
    else { return String(path) }
    let start = publicURL[slash...]
    return String(path.hasPrefix(start + "/") ? path.dropFirst(start.count) : path)
  }

  // MARK: What may be configured

  /// True for twelve digits.
  public static func isAccountID(_ text: String) -> Bool { AccountID.isValid(text) }

  /// True for 1 to 32 of `a-z 0-9 -`.
  public static func isRegion(_ text: String) -> Bool {
    (1...32).contains(text.utf8.count)
      && text.utf8.allSatisfy {
        (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == UInt8(ascii: "-")
      }
  }

  /// True for `http` or `https`, host, perhaps a port and a path, with no slash at the end.
  public static func isPublicURL(_ text: String) -> Bool {
    let scheme = ["http://", "https://"].first { text.hasPrefix($0) }
    guard let scheme, text.utf8.count <= 512 else { return false }
    let parts = text.dropFirst(scheme.count).split(
      separator: "/", omittingEmptySubsequences: false)
    guard let authority = parts.first, isHostAndPort(authority) else { return false }
    return parts.dropFirst().allSatisfy { part in
      !part.isEmpty
        && part.utf8.allSatisfy { Alphabet.isNameByte($0) || $0 == UInt8(ascii: ".") }
    }
  }

  private static func isHostAndPort(_ text: Substring) -> Bool {
    guard SQSService.isAuthority(String(text)) else { return false }
    var rest = text
    if text.hasPrefix("[") {
      guard let end = text.firstIndex(of: "]") else { return false }
      rest = text[text.index(after: end)...]
      guard rest.isEmpty || rest.hasPrefix(":") else { return false }
    } else {
      rest = text[(text.firstIndex(of: ":") ?? text.endIndex)...]
      guard rest.count < text.count else { return false }
    }
    return rest.isEmpty || UInt16(rest.dropFirst()).map { $0 > 0 } ?? false
  }
}
