// SPDX-License-Identifier: Apache-2.0
internal import Crypto

/// One access key: what its requests are signed with, and who sends them.
///
/// Its descriptions and its mirror show neither the secret nor the token.
package struct Credential: Sendable {
  /// What a request names, for example `AKIDEXAMPLE`.
  package var keyID: String
  package var secret: String
  /// What every request must carry besides; nil for a key without.
  package var sessionToken: String?
  /// Seconds since 1970 from which on the token is refused; nil for never.
  package var expiresAt: Int64?
  var principal: Principal
  /// What the principal may do; nil for no limit of its own.
  package var policy: AccessPolicy?
}

extension Credential: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  package var description: String { "\(keyID) of \(principal.arn)" }
  package var debugDescription: String { description }
  package var customMirror: Mirror {
    Mirror(self, children: ["keyID": keyID, "arn": principal.arn])
  }
}

extension Credential {
  package var account: String { principal.account }
  package var arn: String { principal.arn }
  /// What messages name as their sender.
  package var senderID: String { principal.id }
  package var policyText: String? { policy?.text }
  /// The role of a session; nil for others.
  package var roleARN: String? {
    guard case .session(let role) = principal.kind else { return nil }
    return role
  }
}

extension Principal {
  /// A user of an account.
  static func user(_ name: String, of account: String, partition: String) -> Principal {
    let arn = "arn:\(partition):iam::\(account):user/\(name)"
    return Principal(kind: .user, account: account, arn: arn, id: uniqueID("AIDA", arn))
  }

  /// A session of a role.
  static func session(
    _ session: String, role: String, of account: String, partition: String
  ) -> Principal {
    let roleARN = "arn:\(partition):iam::\(account):role/\(role)"
    return Principal(
      kind: .session(roleARN: roleARN), account: account,
      arn: "arn:\(partition):sts::\(account):assumed-role/\(role)/\(session)",
      id: uniqueID("AROA", roleARN) + ":" + session)
  }

  /// 17 characters of base 32 behind the prefix: the first 85 bits of the name's SHA-256. Messages
  /// on disk hold it, so it stays what it is.
  private static func uniqueID(_ prefix: String, _ arn: String) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".utf8)
    var text = Array(prefix.utf8)
    var bits = UInt32(0)
    var held = 0
    for byte in SignatureV4.digest(Array(arn.utf8)) {
      bits = (bits << 8 | UInt32(byte)) & 0xffff
      held += 8
      while held >= 5, text.count < prefix.utf8.count + 17 {
        held -= 5
        text.append(alphabet[Int(bits >> UInt32(held) & 31)])
      }
      if text.count == prefix.utf8.count + 17 { break }
    }
    return String(decoding: text, as: UTF8.self)
  }
}
