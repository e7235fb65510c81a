/** Worker thread: loads and pins a data path. The kernel takes seconds to verify it, and nobody else should wait for that. */
import { parentPort, workerData } from 'node:worker_threads';
import { DataPath, type DataPathOptions } from '../../hypervisor-shim/datapath/datapath.js';

DataPath.create(workerData as DataPathOptions).close();
parentPort?.postMessage('pinned');
