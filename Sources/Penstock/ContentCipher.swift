// SPDX-License-Identifier: Apache-2.0
public import PenstockCore

/// Seals bodies and attributes before they reach the log, and opens them when they are delivered:
/// see `StoreOptions.cipher` and `QueueSettings.encryptionKey`. Called without the store's lock, on
/// threads of its callers and its own, many at a time.
public protocol ContentCipher: Sendable {
  /// Whether `seal` knows a key of this name.
  func has(key: String) -> Bool
  /// Seals bytes so that whoever changes them is found out.
  ///
  /// - Parameters:
  ///   - reuse: how long what one data key sealed first may be followed by more.
  ///   - time: the store's.
  /// - Throws: `.keyNotFound`.
  func seal(
    _ plain: [UInt8], key: String, reuse: Duration, at time: Timestamp
  ) throws(PenstockError) -> [UInt8]
  /// The reverse.
  ///
  /// - Throws: `.keyNotFound`; `.keyMismatch` when the key is another of that name, or the bytes
  ///   were changed.
  func open(_ sealed: [UInt8], key: String) throws(PenstockError) -> [UInt8]
}

extension Engine {
  /// Seals what is to be sent with the key of its queue.
  func seal(
    _ content: inout MessageContent, _ key: String, _ settings: QueueSettings
  ) throws(PenstockError) {
    guard let cipher = options.cipher else {
      throw PenstockError(.keyNotFound, "the store has no keys, so none of the name \(key)")
    }
    let sealed = try cipher.seal(content.plain, key: key, reuse: settings.dataKeyReuse, at: now)
    (content.body, content.attributes, content.sealedWith) = (sealed, [], key)
  }

  /// What was sent, for whoever receives it.
  func open(
    _ content: consuming MessageContent, of message: UInt64
  ) throws(PenstockError) -> MessageContent {
    guard let key = content.sealedWith else { return content }
    var (code, reason) = (PenstockError.Code.keyNotFound, "the store has no keys")
    if let cipher = options.cipher {
      do throws(PenstockError) {
        let plain = try cipher.open(content.body, key: key)
        if let opened = content.opened(plain) { return opened }
        (code, reason) = (.keyMismatch, "there is no message in it")
      } catch {
        (code, reason) = (error.code, error.message)
      }
    }
    throw PenstockError(
      code,
      "message with LSN \(message) is sealed with the key \(key) and cannot be opened: \(reason). "
        + "It stays")
  }
}
