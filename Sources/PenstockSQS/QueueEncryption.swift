// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// The attributes SqsManagedSseEnabled and KmsMasterKeyId: two names for one key, or none.
///
/// While the store has no key ring, they are kept and told, as tools expect, and nothing is
/// sealed: `QueueSettings.showsEncryption`. A queue whose messages are sealed never turns into one
/// of those.
enum QueueEncryption {
  /// The key that the attributes name; empty for none.
  static func key(of settings: QueueSettings) -> String {
    settings.encryptionKey.isEmpty ? settings.showsEncryption : settings.encryptionKey
  }

  static func isManaged(_ settings: QueueSettings) -> Bool {
    key(of: settings) == KeyRing.managedKey
  }

  /// The key ring's name that KmsMasterKeyId shows; nil when there is none.
  static func masterKey(_ settings: QueueSettings) -> String? {
    let key = key(of: settings)
    return key.isEmpty || key == KeyRing.managedKey ? nil : key
  }

  /// What a request says of the two; nil for what it does not mention.
  struct Change {
    var isManaged: Bool?
    var masterKey: String?

    /// - Parameters:
    ///   - settings: those of the queue; nil for a new one.
    ///   - seals: whether the store has a key ring.
    func apply(
      to change: inout QueueSettingsChange, of settings: QueueSettings?, seals: Bool
    ) throws(SQSError) {
      guard isManaged != nil || masterKey != nil else { return }
      let before = settings.map { QueueEncryption.key(of: $0) } ?? ""
      let key: String
      switch (isManaged, masterKey) {
      case (true?, let name?) where !name.isEmpty:
        throw SQSError(
          .invalidAttributeName,
          "You can use one type of server-side encryption (SSE) at one time. You can either enable "
            + "KMS SSE or SQS SSE.")
      case (true?, _): key = KeyRing.managedKey
      case (_, let name?) where !name.isEmpty: key = name
      // What is turned off may not be what is on.
      case (false?, nil): key = before == KeyRing.managedKey ? "" : before
      case (nil, _?): key = before == KeyRing.managedKey ? before : ""
      default: key = ""
      }
      let isSealed = seals || settings?.encryptionKey.isEmpty == false
      change.encryptionKey = isSealed ? key : ""
      change.showsEncryption = isSealed ? "" : key
    }
  }
}
