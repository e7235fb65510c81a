import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { DataPath, type DataPathOptions } from '../../hypervisor-shim/datapath/datapath.js';

/** `DataPath.create` without blocking this thread, which watches over other services meanwhile. */
export async function loadDataPath(options: DataPathOptions): Promise<DataPath> {
  const worker = new Worker(new URL('./data-path-worker.js', import.meta.url), { workerData: options });
  // Rejects with what the worker throws.
  await once(worker, 'message');
  await worker.terminate();
  return DataPath.adopt(options.pinDirectory);
}
