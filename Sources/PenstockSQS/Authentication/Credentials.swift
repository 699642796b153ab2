// SPDX-License-Identifier: Apache-2.0

/// Why a credentials file is not taken. Holds no secret, no token and no key
/// id; of a policy it may quote the part that is wrong.
public struct CredentialsError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Counted from 1; nil when it is about the file as a whole.
  public var line: Int?
  /// What is wrong and what to do.
  public var message: String

  init(_ line: Int?, _ message: String) {
    self.line = line
    self.message = message
  }

  public var description: String { line.map { "line \($0): \(message)" } ?? message }
}

/// The access keys of a credentials file.
///
/// Invariants
/// - I1: no two keys with the same id; at least one, but in `none`.
/// - I2: no secret and no token is empty.
package struct Credentials: Sendable {
  private let byKeyID: [String: Credential]

  static let none = Credentials(byKeyID: [:])

  private init(byKeyID: [String: Credential]) { self.byKeyID = byKeyID }

  package var count: Int { byKeyID.count }

  /// Each once, in ascending order.
  package var accounts: [String] { Set(byKeyID.values.map(\.account)).sorted() }

  package subscript(keyID: String) -> Credential? { byKeyID[keyID] }

  /// Reads a file in the format of the AWS shared credentials file with the settings of
  /// `CredentialsFile.Setting`.
  ///
  /// - Parameter defaultAccount: of keys that name none.
  package init(
    parsing text: String, partition: String, defaultAccount: String
  ) throws(CredentialsError) {
    var found: [String: Credential] = [:]
    var lines: [String: Int] = [:]
    for profile in try CredentialsFile.profiles(text) {
      let credential = try profile.credential(
        partition: partition, defaultAccount: defaultAccount)
      let line = profile.line(of: .keyID)
      if let earlier = lines.updateValue(line, forKey: credential.keyID) {
        throw CredentialsError(
          line, "the key id is that of line \(earlier). Remove one of the two profiles.")
      }
      found[credential.keyID] = credential
    }
    guard !found.isEmpty else {
      throw CredentialsError(
        nil,
        "the credentials file holds no profile. Add one: [default], aws_access_key_id and "
          + "aws_secret_access_key, each on a line of its own.")
    }
    byKeyID = found
  }
}
